"""Of two places that were at one place, the one that fits less came into view."""

import numpy as np
import pytest
import torch

from warpfuse.stages.cpu.occlusion import unique_match
from warpfuse.stages.motion.settings import ConfidenceSettings


def scene(seed, h, w):
    """Two parts that move towards each other, a little rough, and two pictures that have nothing in common."""
    generator = np.random.default_rng(seed)
    flow = generator.normal(0, 0.3, (2, h, w)).astype(np.float32)
    flow[0, :, : w // 2] += 3
    flow[1, h // 2 :] -= 2
    gray = generator.integers(0, 256, (2, h, w)).astype(np.uint8)
    return torch.from_numpy(flow)[None], gray[0], gray[1]


def spelled_out(flow, gray, gray_prev, settings):
    """The docstring, pixel by pixel."""
    f, (h, w) = flow[0].numpy().astype(np.float64), gray.shape
    gap = np.empty((h, w))
    for y, x in np.ndindex(h, w):
        px, py = np.clip(x + f[0, y, x], 0, w - 1), np.clip(y + f[1, y, x], 0, h - 1)
        i, j = min(int(px), w - 2), min(int(py), h - 2)
        four = gray_prev[j : j + 2, i : i + 2].astype(float)
        there = [1 - (py - j), py - j] @ four @ [1 - (px - i), px - i]
        gap[y, x] = abs(float(gray[y, x]) - there)
    padded = np.pad(gap, 1, "edge")
    misfit = sum(padded[j : j + h, i : i + w] for j in range(3) for i in range(3)) / 9
    matches = {}
    places = np.floor(np.stack((np.arange(w) + f[0], np.arange(h)[:, None] + f[1])) + 0.5).astype(int)
    for y, x in np.ndindex(h, w):
        at = tuple(places[:, y, x])
        if 0 <= at[0] < w and 0 <= at[1] < h and (at not in matches or misfit[y, x] < misfit[matches[at]]):
            matches[at] = y, x
    out = np.ones((h, w))
    for y, x in np.ndindex(h, w):
        column, line = places[:, y, x]
        for at in [(column + i, line + j) for j in (-1, 0, 1) for i in (-1, 0, 1)]:
            if not (0 <= column < w and 0 <= line < h) or at not in matches:
                continue
            own, other = f[:, y, x], f[(slice(None), *matches[at])]
            f2, o2, gap2 = own @ own, other @ other, (own - other) @ (own - other)
            if settings.check == "norm":
                apart = gap2**0.5 > settings.slope * (f2**0.5 + o2**0.5) + settings.offset * 1.5
            else:
                apart = gap2 > settings.slope * (f2 + o2) + settings.offset * 2.25
            if apart and misfit[matches[at]] <= misfit[y, x]:
                out[y, x] = 0
    on = (places[0] >= 0) & (places[0] < w) & (places[1] >= 0) & (places[1] < h)
    return out, float((out * on * (misfit <= 255 * settings.photometric)).mean())


@pytest.mark.parametrize("check", ["squared", "norm"])
@pytest.mark.parametrize("size", [(24, 36), (17, 23), (2, 3)])
def test_matches_are_settled_as_it_is_said(size, check):
    for seed in range(3):
        of, settings = scene(seed, *size), ConfidenceSettings(check=check, photometric=0.3)
        wanted, share = spelled_out(*of, settings)
        got, told = unique_match(*of, settings.limits)
        assert np.abs(got[0, 0].numpy() - wanted).mean() < 0.005 and abs(told - share) < 0.01  # float32 on the edge
        if size != (2, 3):
            assert 0.05 < 1 - wanted.mean() < 0.9, "both kinds are there"
            other, _ = unique_match(*of, settings.model_copy(update={"offset": 4 * settings.offset}).limits)
            assert np.abs(other[0, 0].numpy() - wanted).mean() > 0.02, "the control: another tolerance"


def test_what_comes_into_view_is_outdone_and_what_covers_is_not():
    """The left half moves 6 pixels to the left over the right one, which stands: no place is matched twice there. Back
    again, it uncovers 6 columns that are matched with what the moving half has."""
    generator = np.random.default_rng(0)
    ground, thing = (generator.integers(0, 256, (20, 40)).astype(np.uint8) for _ in range(2))
    covering, uncovering = ground.copy(), ground.copy()
    covering[:, :26], uncovering[:, :20] = thing[:, :26], thing[:, 6:26]
    flow = torch.zeros(1, 2, 20, 40)
    flow[:, 0, :, :20] = 6  # the thing was 6 pixels to the right
    m, _ = unique_match(flow, uncovering, covering, ConfidenceSettings().limits)
    assert (m[0, 0, :, 20:26] == 0).all(), "came into view"
    assert m[0, 0, :, :19].mean() > 0.98 and m[0, 0, :, 28:].eq(1).all()
    flow = torch.zeros(1, 2, 20, 40)
    flow[:, 0, :, :26] = -6  # the other way about: what is covered is matched with by nobody
    m, _ = unique_match(flow, covering, uncovering, ConfidenceSettings().limits)
    assert m[0, 0, :, 8:].eq(1).all()


def test_one_motion_disputes_nothing():
    gray = np.random.default_rng(0).integers(0, 256, (2, 30, 40)).astype(np.uint8)
    for motion in ((0, 0), (3.4, -2.7), (-11, 5)):
        flow = torch.tensor(motion).view(1, 2, 1, 1).expand(1, 2, 30, 40).float().contiguous()
        assert unique_match(flow, *gray, ConfidenceSettings().limits)[0].eq(1).all()


def test_a_flow_that_is_no_number_matches_nothing():
    gray = np.zeros((1, 1), np.uint8)
    for value in (float("nan"), float("inf"), -1e30):
        for size in ((1, 1), (9, 12)):
            m, share = unique_match(torch.full((1, 2, *size), value), gray, gray, ConfidenceSettings().limits)
            assert m.eq(1).all() and share == 0
