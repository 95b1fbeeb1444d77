"""The procedural painters: deterministic, tied to the picture alone, calm on empty ground, and made of their layers."""

import cv2
import numpy as np
import pytest

from warpfuse.export.embedded.painters.colour import hex_rgb, mixed, plateaus, saturated, to_lab, to_rgb
from warpfuse.export.embedded.painters.flow_fields import across, along, kuwahara, tangents
from warpfuse.export.embedded.painters.structure import exposed, structure
from warpfuse.export.embedded.painters.styles import MARGIN, PAINTERS, layers, paint

NAMES = [p.name for p in PAINTERS]
WITH_LINES = [p.name for p in PAINTERS if p.line is not None]


def scene(height=96, width=128):
    """rgb of a light ground with a dark disc, a red box and a line two pixels wide."""
    out = np.full((height, width, 3), 205, np.uint8)
    cv2.circle(out, (40, 48), 22, (60, 70, 90), -1, cv2.LINE_AA)
    cv2.rectangle(out, (80, 20), (116, 60), (190, 40, 40), -1)
    cv2.line(out, (70, 88), (124, 66), (90, 80, 80), 2, cv2.LINE_AA)
    return out.astype(np.float32) / 255


def grain(shape, deviation, seed=0):
    return np.random.default_rng(seed).normal(0, deviation, shape).astype(np.float32)


@pytest.fixture(scope="module")
def painted():
    """name -> layers of `scene`."""
    return {name: paint(scene(), name) for name in NAMES}


def test_there_are_twelve_styles_and_more():
    assert len(NAMES) >= 12 and len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_its_inked_paint_with_the_ink_where_the_cover_is(painted, name):
    made, painter = painted[name], PAINTERS[NAMES.index(name)]
    inked = made.paint if painter.inked is None else painter.inked(made.paint)
    assert np.allclose(made.picture, inked + made.cover[..., None] * (hex_rgb(painter.ink) - inked), atol=1e-5)
    for layer, shape in ((made.paint, (96, 128, 3)), (made.cover, (96, 128)), (made.picture, (96, 128, 3))):
        assert layer.shape == shape and layer.dtype == np.float32
        assert layer.min() >= 0 and layer.max() <= 1
    assert bool(made.cover.max() > 0.3) is (name in WITH_LINES)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_painted_alike_twice_and_another_otherwise(painted, name):
    again = paint(scene(), name)
    assert np.array_equal(again.picture, painted[name].picture)
    assert not np.allclose(paint(1 - scene(), name).picture, again.picture, atol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_paint_goes_with_the_picture_and_not_with_the_screen(name):
    """Cut 5 pixels further on, the same things are painted the same: no lattice, nothing that stands still."""
    big = scene(160, 192)
    here, there = (paint(big[:, x : x + 176], name).picture for x in (0, 5))
    inside = np.s_[40:-40, 40:-45]
    gap = np.abs(here[:, 5:][inside] - there[:, :-5][inside])
    assert gap.mean() < 0.01
    control = np.abs(here[inside] - there[inside]).mean()
    assert control > 4 * gap.mean(), "the control: not moved back"


@pytest.mark.parametrize("name", NAMES)
def test_empty_ground_stays_calm_under_the_noise_of_a_sensor(name):
    ground = np.clip(0.55 + grain((96, 128, 3), 0.006), 0, 1)
    light = to_lab(paint(ground, name).picture)[..., 0]
    assert light.std() < 3.0
    textured = np.clip(0.55 + cv2.GaussianBlur(grain((96, 128, 3), 1.0), (0, 0), 1.2), 0, 1)
    if name not in ("noir", "poster", "blueprint"):  # of few tones
        assert to_lab(paint(textured, name).picture)[..., 0].std() > 3.0, "the control: a texture is painted"


@pytest.mark.parametrize("name", NAMES)
def test_white_paper_stays_clean(name):
    page = np.clip(0.97 + grain((96, 128, 3), 0.004), 0, 1)
    assert to_lab(paint(page, name).picture)[..., 0].std() < 1.0


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"pencil"}))
def test_night_is_painted_darker_than_day(name):
    day, night = (to_lab(paint(gain * scene(), name).picture)[..., 0].mean() for gain in (1.0, 0.12))
    assert night < 0.8 * day


@pytest.mark.parametrize("name", NAMES)
def test_letters_of_14_pixels_stay_legible(name):
    page = np.full((64, 256, 3), 245, np.uint8)
    cv2.putText(page, "quick brown foxes", (8, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.65, (15, 15, 15), 1, cv2.LINE_AA)
    picture, source = (to_lab(x)[..., 0] for x in (paint(page / np.float32(255), name).picture, page / np.float32(255)))
    ours, theirs = (x - cv2.blur(x, (15, 15)) for x in (picture, source))
    assert abs(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]) > (0.4 if name == "neon" else 0.6)
    assert abs(np.corrcoef(ours.ravel(), theirs[:, ::-1].ravel())[0, 1]) < 0.3, "the control: other letters"


@pytest.mark.parametrize("name", [p.name for p in PAINTERS if p.line is not None and hasattr(p.line, "low")])
def test_a_line_block_can_start_near_the_cover(name):
    """What `start` says of band and light is within a quarter of the cover, on average within a twentieth."""
    painter = PAINTERS[NAMES.index(name)]
    found = structure(scene())
    band, light, offset = painter.line.start()
    begun = np.clip(band * found.band + light * found.light + offset, 0, getattr(painter.line, "most", 1.0))
    gap = np.abs(begun - layers(painter, found).cover)
    assert gap.max() < 0.25 and gap.mean() < 0.05
    assert np.abs(np.clip(-begun, 0, 1) - layers(painter, found).cover).mean() > 2 * gap.mean()  # the control


@pytest.mark.parametrize("name", ["poster", "blueprint"])
def test_light_that_wavers_by_a_hundredth_changes_an_ink_by_less_than_a_tenth(name):
    """A harder step makes a slight change of the paint, from frame to frame, one of whole inks; without plateaus, the
    control, no light keeps its ink."""
    lab = np.zeros((1, 101, 3), np.float32)
    lab[0, :, 0] = np.arange(101)
    changes = np.abs(np.diff(PAINTERS[NAMES.index(name)].inked(to_rgb(lab))[0], axis=0)).max(1)
    assert changes.max() < 0.1
    kept = changes < 0.1 * changes.max()
    grey = np.abs(np.diff(to_rgb(lab)[0], axis=0)).max(1)
    assert kept.mean() > 0.2 and not (grey < 0.1 * grey.max()).any()


def test_the_rim_is_painted_like_the_rest():
    """A flat picture is flat up to its rim, whose mirrored margin is cut off again."""
    picture = paint(np.full((64, 72, 3), 0.4, np.float32), "oil").picture
    assert picture.shape == (64, 72, 3)
    assert np.ptp(picture.reshape(-1, 3), 0).max() < 1e-3
    assert MARGIN >= 32


def test_tangents_lie_along_a_slanted_edge_and_on_empty_ground_along_the_given_one():
    angle = 0.6
    y, x = np.mgrid[:96, :96] - 48
    edge = 1 / (1 + np.exp(-(x * np.sin(angle) - y * np.cos(angle)) / 2))
    t, sure = tangents(np.repeat(edge[..., None], 3, 2).astype(np.float32))
    assert abs(abs(t[48, 48] @ [np.cos(angle), np.sin(angle)]) - 1) < 1e-3
    assert sure[48, 48] > 0.9
    t, _ = tangents(np.full((64, 64, 3), 0.5, np.float32), slant=0.35)
    assert np.allclose(np.abs(t[32, 32]), [np.cos(0.35), np.sin(0.35)], atol=1e-3)


def test_smoothing_along_stripes_leaves_them_and_across_them_does_not():
    stripes = np.repeat((np.arange(64)[:, None] // 4 % 2).astype(np.float32), 64, 1)
    t = np.zeros((64, 64, 2), np.float32)
    t[..., 0] = 1  # along the rows
    assert np.allclose(along(stripes, t, 4.0), stripes, atol=1e-5)
    (smoothed,) = across(stripes, t, (4.0,))
    assert smoothed[16:48].std() < 0.3 * stripes.std()


def test_kuwahara_flattens_noise_and_keeps_the_edge():
    step = np.repeat(np.where(np.arange(64) < 32, 0.3, 0.7)[None, :, None], 64, 0).repeat(3, 2).astype(np.float32)
    noisy = np.clip(step + grain(step.shape, 0.05), 0, 1)
    calm = kuwahara(noisy, *tangents(noisy), 5.0, 9.0)
    assert calm[8:-8, 8:24].std() < 0.5 * noisy[8:-8, 8:24].std()
    assert np.abs(calm[8:-8, 34] - 0.7).mean() < 0.05 and np.abs(calm[8:-8, 29] - 0.3).mean() < 0.05
    assert np.abs(cv2.GaussianBlur(noisy, (0, 0), 2.5)[8:-8, 34] - 0.7).mean() > 0.05  # the control: a blur


def test_shade_is_lifted_and_light_is_left():
    dark, bright = np.full((64, 64, 3), 0.1, np.float32), np.full((64, 64, 3), 0.9, np.float32)
    assert 1.5 < to_lab(exposed(dark)).mean((0, 1))[0] / to_lab(dark).mean((0, 1))[0] < 2.41
    assert np.allclose(exposed(bright), bright, atol=2e-3)


def test_colour_goes_to_lab_and_back_and_greys_stay_grey():
    rgb = np.random.default_rng(0).random((8, 8, 3), np.float32)
    assert np.allclose(to_rgb(to_lab(rgb)), rgb, atol=4e-3)
    grey = np.full((4, 4, 3), 0.4, np.float32)
    assert np.ptp(to_rgb(saturated(to_lab(grey), 2.0, 90.0)), -1).max() < 2e-3
    assert np.ptp(to_rgb(saturated(to_lab(rgb), 1.5, 90.0)), -1).mean() > np.ptp(rgb, -1).mean()
    steps = plateaus(np.linspace(0, 1, 401, dtype=np.float32), 5, 12.0)
    assert steps.min() >= -1e-6 and steps.max() <= 1 + 1e-6 and (np.diff(steps) >= -1e-6).all()
    for level in range(5):  # most of the way is spent near a plateau
        assert (np.abs(steps - level / 4) < 0.02).sum() > 25
    assert np.allclose(mixed(rgb, np.ones(3, np.float32), np.zeros((8, 8), np.float32)), rgb)
