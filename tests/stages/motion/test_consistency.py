import math

import cv2
import numpy as np
import pytest
import torch
from support.fields import as_bytes, constant_flow, pan, texture

from warpfuse.stages.cpu import warp
from warpfuse.stages.motion.consistency import Consistency

H, W = 96, 128


@pytest.fixture(scope="module")
def source():
    return [as_bytes(rgb) for rgb in pan(5, H, W, (3, -2))]


@pytest.fixture(scope="module")
def honest(source):
    return measured(source, source)


def measured(source, styled):
    consistency = Consistency()
    for pair in zip(source, styled, strict=True):
        consistency.add(*pair)
    return consistency.figures()


def test_a_static_pair_of_pictures_is_perfectly_steady():
    still = [as_bytes(texture(H, W))] * 2
    figures = measured(still, [255 - rgb for rgb in still])
    assert set(figures) == {"e_warp", "e_warp_source", "tof", "sharpness", "hf_energy", "pairs"}
    assert figures["pairs"] == 1
    assert figures["e_warp"] < 1e-9 and figures["e_warp_source"] < 1e-9 and figures["tof"] < 1e-4


def test_the_source_as_its_own_style_is_the_floor(honest):
    assert honest["e_warp"] == honest["e_warp_source"] < 1e-3
    assert honest["tof"] == 0
    assert honest["pairs"] == 4


def test_a_frozen_picture_does_not_win(source, honest):
    frozen = measured(source, [source[0]] * len(source))
    assert frozen["tof"] == pytest.approx(math.hypot(3, 2), rel=0.1)
    assert frozen["e_warp"] > 10 * honest["e_warp"]  # still it is, but not where the motion says


def test_a_blur_gains_steadiness_and_sharpness_tells(source):
    noise = np.random.default_rng(0)
    grainy = [np.clip(rgb + noise.normal(0, 12, rgb.shape), 0, 255).astype(np.uint8) for rgb in source]
    plain = measured(source, grainy)
    blurred = measured(source, [np.asarray(cv2.GaussianBlur(rgb, (0, 0), 2.0)) for rgb in grainy])
    assert blurred["e_warp"] < 0.2 * plain["e_warp"]
    assert blurred["sharpness"] < 0.1 * plain["sharpness"]
    assert blurred["hf_energy"] < 0.5 * plain["hf_energy"]


def test_flicker_is_seen(source, honest):
    gain = np.random.default_rng(1).uniform(0.7, 1.0, len(source))
    flickering = measured(source, [(rgb * g).astype(np.uint8) for rgb, g in zip(source, gain, strict=True)])
    assert flickering["e_warp"] > 5 * honest["e_warp"]
    assert flickering["e_warp_source"] == honest["e_warp_source"]


def test_control_unsigned_bytes_wrap_round():
    """A picture one step darker differs by 1/255; subtracted as bytes it differs by 255/255."""
    still = [as_bytes(texture(H, W))] * 2
    styled = [np.full((H, W, 3), 100, np.uint8), np.full((H, W, 3), 101, np.uint8)]
    assert measured(still, styled)["e_warp"] == pytest.approx((1 / 255) ** 2, rel=1e-3)
    in_bytes = float(np.square((styled[0] - styled[1]).astype(np.float64) / 255).mean())
    assert in_bytes == pytest.approx(1.0)


def test_pairs_across_a_cut_are_left_out():
    a = texture(H, W, 1) * torch.tensor([0.9, 0.6, 0.3]).view(1, 3, 1, 1)
    b = texture(H, W, 2) * torch.tensor([0.2, 0.4, 0.9]).view(1, 3, 1, 1)
    clip = [as_bytes(rgb) for rgb in (a, a, b, b)]
    assert measured(clip, clip)["pairs"] == 2


def test_the_source_is_brought_to_the_styled_size():
    large = [as_bytes(rgb) for rgb in pan(2, 2 * H, 2 * W, (4, 2))]
    small = [np.asarray(cv2.resize(rgb, (W, H), interpolation=cv2.INTER_AREA)) for rgb in large]
    assert measured(large, small) == measured(small, small)


def test_a_style_that_stays_on_the_things_beats_one_that_boils(source):
    """The styled picture pulled along by the true motion, against an equal one made anew for each frame."""
    first = texture(H, W, 9)
    steady = [as_bytes(warp(first, constant_flow(H, W, 3 * i, -2 * i))) for i in range(len(source))]
    boiling = [as_bytes(texture(H, W, 10 + i)) for i in range(len(source))]
    steady_figures, boiling_figures = measured(source, steady), measured(source, boiling)
    assert steady_figures["e_warp"] < 0.1 * boiling_figures["e_warp"]
    assert steady_figures["tof"] < 0.5 * boiling_figures["tof"]


def test_nothing_compared_is_not_a_perfect_score():
    figures = Consistency().figures()
    assert figures["pairs"] == 0 and math.isnan(figures["e_warp"]) and math.isnan(figures["sharpness"])


def test_what_is_no_picture_is_refused(source):
    consistency = Consistency()
    with pytest.raises(ValueError, match="styled: uint8"):
        consistency.add(source[0], source[0].astype(np.float32))
    consistency.add(source[0], source[0])
    with pytest.raises(ValueError, match="until now"):
        consistency.add(source[0], source[0][:64])
