"""Synthetic motion: the flow that is told is the one the pictures have, layer by layer."""

import cv2
import numpy as np
import pytest

from warpfuse.export.embedded.motion import MARGIN, affine, at_scales, batch, move, random_pair, thin_plate

H, W = 96, 128
STILL = np.zeros((2, 2))


def smooth(height, width, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 12, width // 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def texture(seed):
    return smooth(H + 2 * MARGIN, W + 2 * MARGIN, seed)


def pulled(picture, flow):
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    at = np.stack((x, y), 2) + flow
    inside = (at >= 0).all(2) & (at[..., 0] <= flow.shape[1] - 1) & (at[..., 1] <= flow.shape[0] - 1)
    return cv2.remap(picture, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), inside


def gap(pair, flow):
    """Mean difference of the current picture and the previous one pulled along `flow`, where that comes from inside."""
    back, inside = pulled(pair.prev, flow)
    return np.abs(back.astype(float) - pair.cur)[inside].mean()


def test_the_previous_picture_pulled_along_the_flow_is_the_current_one():
    turned = affine(H, W, np.array([[0.03, -0.05], [0.05, -0.02]]), (3.3, -2.6), (W / 2, H / 2))
    pair = move(texture(1), None, turned, None)
    assert gap(pair, turned) < 1.0
    assert gap(pair, -turned) > 10 and gap(pair, 0 * turned) > 10  # the controls: the other way, and none


def test_a_cut_out_moves_over_what_is_behind_it():
    shape = np.zeros((H + 2 * MARGIN, W + 2 * MARGIN), np.float32)
    shape[MARGIN + 30 : MARGIN + 60, MARGIN + 40 : MARGIN + 80] = 1  # where it is in the previous picture
    camera, own = affine(H, W, STILL, (2, 1), (0, 0)), affine(H, W, STILL, (-8, 4), (0, 0))
    behind = move(texture(1), None, camera, None)
    pair = move(texture(2), shape, own, behind)
    assert (pair.flow[26:56, 48:88] == own[0, 0]).all()  # it is where it was pulled from: p + flow lies in the shape
    outside = np.ones((H, W), bool)
    outside[26:56, 48:88] = False
    assert (pair.flow[outside] == camera[0, 0]).all()
    back, inside = pulled(pair.prev, pair.flow)
    wrong = (np.abs(back.astype(float) - pair.cur).mean(2) > 3) & inside
    assert 0 < wrong.sum() < 700  # what the cut-out laid bare, 8 px beside it and 4 below, and nothing else
    assert not wrong[28:54, 50:86].any()


def test_a_thin_plate_goes_through_its_points_and_keeps_what_is_affine():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, [W - 1, H - 1], (9, 2))
    points[:2] = (40, 24), (88, 64)  # corners of its cells
    values = rng.normal(0, 5, (9, 2))
    field = thin_plate(H, W, points, values)
    assert np.allclose(field[24, 40], values[0], atol=1e-3) and np.allclose(field[64, 88], values[1], atol=1e-3)
    slope = np.array([[0.1, -0.2], [0.05, 0.1]])
    y, x = np.mgrid[:H, :W]
    wanted = np.stack((x, y), 2) @ slope.T + [3, -1]
    found = thin_plate(H, W, points, points @ slope.T + [3, -1])
    # OpenCV reads at thirty-seconds of a cell of 8 pixels; a slope of 0.3 makes that 0.075 pixels, up and down
    assert np.abs(found - wanted)[8:-8, 8:-8].max() < 0.15 and np.abs((found - wanted)[8:-8, 8:-8].mean()) < 0.02
    assert np.abs(field - wanted).max() > 3  # the control


@pytest.fixture(scope="module")
def photos():
    return at_scales([smooth(300, 400, 3), smooth(500, 380, 4)], H, W)


def test_every_photograph_covers_a_picture_and_its_margins(photos):
    assert all(p.shape[0] >= H + 2 * MARGIN and p.shape[1] >= W + 2 * MARGIN for p in photos)
    small = at_scales([smooth(60, 60, 5)], H, W)
    assert len(small) == 1 and small[0].shape[0] >= H + 2 * MARGIN and small[0].shape[1] >= W + 2 * MARGIN


def test_random_scenes_move_as_told_and_a_seed_gives_the_same_again(photos):
    pairs = [random_pair(photos, H, W, np.random.default_rng(seed)) for seed in range(30)]
    moved = [pair for pair in pairs if np.linalg.norm(pair.flow, axis=2).mean() > 2]
    assert len(moved) > 5
    # most of each picture follows; what was laid bare, noise and another light do not
    told, none = (np.median([gap(pair, k * pair.flow) for pair in moved]) for k in (1, 0))
    assert told < 0.6 * none
    again = random_pair(photos, H, W, np.random.default_rng(3))
    assert all(np.array_equal(a, b) for a, b in zip(
        (again.cur, again.prev, again.flow), (pairs[3].cur, pairs[3].prev, pairs[3].flow), strict=True))  # fmt: skip
    assert not np.array_equal(pairs[3].cur, pairs[4].cur)


def test_a_batch_has_the_layout_of_the_network(photos):
    pairs = [random_pair(photos, H, W, np.random.default_rng(seed)) for seed in range(2)]
    cur, prev, flow = batch(pairs)
    assert cur.shape == prev.shape == (2, 3, H, W) and flow.shape == (2, 2, H, W)
    assert float(cur[1, 2, 5, 7]) == pytest.approx(pairs[1].cur[5, 7, 2] / 255)
    assert float(flow[1, 0, 5, 7]) == pairs[1].flow[5, 7, 0]
