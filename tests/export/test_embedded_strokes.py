"""Strokes follow the edges of a picture as the painters' do, rest on empty ground, and move with the picture."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, pixel_shuffle

from warpfuse.export.embedded.painters.flow_fields import blur
from warpfuse.export.embedded.painters.structure import structure
from warpfuse.export.embedded.strokes import DIRECTIONS, DRAWN, MOST, PIXELS, Strokes, half_size_light


def strokes(rgb, network=None):
    """rgb [h,w,3] in 0..1 -> (strokes, texture as drawn), [h/2,w/2] each."""
    picture = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32))
    with torch.no_grad():
        out = (network or Strokes())(conv2d(picture, half_size_light(), stride=8))
    return tuple(pixel_shuffle(part, 4)[0, 0].numpy() for part in out.split(PIXELS, 1))


def fur(height=192, width=256, seed=0):
    """Grey texture of short hairs that lie along circles, with the spectrum of none of our filters."""
    y, x = np.mgrid[:height, :width] - np.array([height / 2, -40.0])[:, None, None]
    angle = np.arctan2(y, x)
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    hairs = sum(
        np.roll(noise, (round(s * np.cos(a)), round(-s * np.sin(a))), (0, 1)) * (np.abs(angle - a) < 0.1)
        for a in np.arange(-1.6, 1.6, 0.1)
        for s in range(-6, 7)
    )
    grey = 0.5 + 0.04 * blur(np.asarray(hairs, np.float32), 0.8)
    return np.repeat(grey[..., None], 3, 2).clip(0, 1).astype(np.float32)


def agreement(a, b):
    return np.corrcoef(a[12:-12, 12:-12].ravel(), b[12:-12, 12:-12].ravel())[0, 1]


def test_they_are_the_ridges_that_the_painters_draw():
    """Against line integrals along the stream lines; drawn across the edges (the control) they are others."""
    picture = fur()
    wanted = structure(picture).ridges
    wanted = wanted.reshape(wanted.shape[0] // 2, 2, wanted.shape[1] // 2, 2).mean((1, 3))
    turned = Strokes()
    turned.draw.copy_(turned.draw.roll(DIRECTIONS // 2 * PIXELS, 0))
    assert agreement(strokes(picture)[0], wanted) > 0.95
    assert agreement(strokes(picture, turned)[0], wanted) < 0.5


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 135, 160])
def test_a_grating_comes_through_at_every_angle(degrees):
    """Drawn along its own lines it loses little; across them it would vanish."""
    y, x = np.mgrid[:128, :128]
    phase = 2 * np.pi * (x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))) / 9.0
    picture = np.repeat((0.5 + 0.06 * np.cos(phase))[..., None], 3, 2)
    _, drawn = strokes(picture)
    light = np.cos(phase).reshape(64, 2, 64, 2).mean((1, 3))
    assert agreement(drawn, light) > 0.95
    kept = drawn[12:-12, 12:-12].std() / (DRAWN * 0.06 * light[12:-12, 12:-12].std())
    assert 0.4 < kept < 1.1


def test_empty_ground_and_sensor_noise_make_no_strokes():
    noise = np.random.default_rng(0).normal(0, 1 / 255, (128, 128, 1)).astype(np.float32)
    assert np.abs(strokes(np.full((64, 64, 3), 0.4, np.float32))[0]).max() < 1e-3
    assert strokes(0.4 + np.repeat(noise, 3, 2))[0].std() < 0.1
    assert strokes(fur())[0].std() > 0.4, "control: texture does"


def test_they_move_with_the_picture():
    """By a cell to rounding, by two pixels nearly."""
    here, by_cell, by_pixels = (strokes(np.roll(fur(), s, 1))[0] for s in (0, 8, 2))
    inside = np.s_[16:-16, 16:-16]
    np.testing.assert_allclose(by_cell[inside], np.roll(here, 4, 1)[inside], atol=0.02)
    assert agreement(by_pixels, np.roll(here, 1, 1)) > 0.99 > agreement(by_pixels, here)


def test_they_are_bounded():
    loud = np.random.default_rng(1).random((64, 64, 3)).astype(np.float32)
    for part in strokes(loud):
        assert np.abs(part).max() <= MOST + 1e-6
