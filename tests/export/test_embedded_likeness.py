"""What a target keeps of its source: light, features, letters."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from warpfuse.export.embedded.documents import legible, page
from warpfuse.export.embedded.likeness import GLOW, SLOPE, guided, under_light, with_features
from warpfuse.export.embedded.photographs import to_tensor


def grey(value, height=96, width=128):
    return torch.full((1, 3, height, width), float(value))


@pytest.fixture
def strokes():
    """A painted picture [1,3,h,w]: paper of 0.9 under lines of 0.45."""
    painted = grey(0.9)
    painted[..., ::6] = 0.45
    return painted


@pytest.fixture
def lamp():
    """A source [1,3,h,w] whose left half is bright and whose right half is night."""
    source = grey(0.7)
    source[..., 64:] = 0.02
    return source


def test_what_is_a_line_in_the_guide_comes_back_and_grain_does_not():
    guide = torch.rand(1, 1, 48, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(guided(0.3 - 0.2 * guide, guide, flat=1e-8), 0.3 - 0.2 * guide, atol=1e-3)
    grain = torch.rand(1, 1, 48, 64, generator=torch.Generator().manual_seed(1))
    assert guided(grain, guide).std() < 0.3 * grain.std()


def test_by_day_nothing_changes_and_by_night_the_paper_is_dark(strokes):
    assert torch.equal(under_light(strokes, grey(0.5)), strokes)
    night = under_light(strokes, grey(0.05))
    assert night.mean() == pytest.approx(GLOW + SLOPE * 0.05, rel=0.02)
    assert night[..., ::6].mean() / night[..., 3::6].mean() == pytest.approx(0.5, abs=1e-3), "lines keep their contrast"


def test_the_light_of_a_thing_ends_at_its_edge(lamp):
    shown = under_light(grey(0.9), lamp)[0, 0, 48]
    assert (shown[:61] > 0.88).all() and (shown[67:] < 0.3).all()
    blurred = nn.functional.avg_pool2d(lamp, 25, 1, 12, count_include_pad=False)  # the control: light without edges
    assert (under_light(grey(0.9), blurred)[0, 0, 48, 67:] > 0.3).any()


def test_small_things_are_drawn_in_and_large_ones_are_not(lamp):
    source = lamp.clone()
    source[..., 40:43, 20:23] = 0.1  # an eye
    shown = with_features(grey(0.6), source)[0, 0]
    assert shown[41, 21] < 0.4 and shown[41, 40] == pytest.approx(0.6) and shown[41, 100] == pytest.approx(0.6)
    assert torch.allclose(with_features(grey(0.6), grey(0.3)), grey(0.6), atol=1e-6)


def test_letters_outlast_strokes_over_them():
    source = np.full((96, 256, 3), 250, np.uint8)
    cv2.putText(source, "Warp", (20, 64), cv2.FONT_HERSHEY_SIMPLEX, 2, (10, 10, 10), 3, cv2.LINE_AA)
    painted = source // 2 + 100 + np.random.default_rng(0).integers(-90, 30, (96, 256, 1)).astype(np.uint8)
    letters, paper = source[..., 0] < 50, source[..., 0] > 240

    def legibility(picture):
        """How many deviations lie between letters and paper."""
        picture = picture.astype(float)
        return (picture[paper].mean() - picture[letters].mean()) / (picture[paper].std() + picture[letters].std())

    assert legibility(legible(painted, source)) > 2 * legibility(painted)


@pytest.mark.parametrize("seed", range(6))
def test_a_page_is_mostly_flat_with_sharp_edges(seed):
    photo = np.random.default_rng(9).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    shown = page([photo], (320, 200), np.random.default_rng(seed))
    assert shown.shape == (200, 320, 3) and shown.dtype == np.uint8
    steps = np.abs(np.diff(shown.astype(int), axis=1)).max(2)
    assert (steps == 0).mean() > 0.4 and (steps > 60).any()
    assert np.array_equal(shown, page([photo], (320, 200), np.random.default_rng(seed)))
    assert to_tensor([shown]).shape == (1, 3, 200, 320)
