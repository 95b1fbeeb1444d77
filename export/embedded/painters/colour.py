"""Colour functions of the painters: CIE Lab, soft steps, plateaus and ramps. All work on single pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]  # [h,w]
Rgb = NDArray[np.float32]  # [h,w,3], 0..1
Lab = NDArray[np.float32]  # [h,w,3], L 0..100


def to_lab(rgb: Rgb) -> Lab:
    """sRGB in [0,1] -> CIE Lab under D65."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb, np.float32), cv2.COLOR_RGB2LAB), np.float32)


def to_rgb(lab: Lab) -> Rgb:
    """The inverse of `to_lab`, clipped to 0..1."""
    rgb = cv2.cvtColor(np.ascontiguousarray(lab, np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.clip(rgb, 0.0, 1.0), np.float32)


def hex_rgb(code: str) -> NDArray[np.float32]:
    """ "#rrggbb" -> [3] in 0..1."""
    return np.asarray([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)


def hex_lab(code: str) -> NDArray[np.float32]:
    """ "#rrggbb" -> Lab [3]."""
    return np.asarray(to_lab(hex_rgb(code)[None, None])[0, 0], np.float32)


def smooth_step(low: float, high: float, x: NDArray[np.floating]) -> Map:
    """A smooth step from 0 at `low` to 1 at `high`, with slope 0 at both ends; it falls if high < low."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


def mixed(a: Rgb, b: Rgb, share: NDArray[np.floating]) -> Rgb:
    """(1 - share) * a + share * b, share [h,w]; b may be a colour [3]."""
    s = share[..., None]
    return np.asarray(a * (1.0 - s) + b * s, np.float32)


def ramp(x: NDArray[np.floating], stops: Sequence[tuple[float, str]]) -> Rgb:
    """x [h,w] in [0,1] -> colours, interpolated linearly in Lab between stops (position, "#rrggbb")."""
    positions = [position for position, _ in stops]
    colours = np.stack([hex_lab(code) for _, code in stops])
    return to_rgb(np.stack([np.interp(x, positions, colours[:, i]) for i in range(3)], -1))


def plateaus(x: NDArray[np.floating], count: int, sharpness: float) -> Map:
    """x in [0,1] quantised to `count` equal plateaus with soft steps between them."""
    y = x * (count - 1)
    base = np.floor(y)
    rise = np.tanh(sharpness * (y - base - 0.5)) / math.tanh(sharpness / 2.0)
    return np.asarray((base + 0.5 + 0.5 * rise) / (count - 1), np.float32)


def saturated(lab: Lab, factor: float, limit: float) -> Lab:
    """Lab with its chroma times `factor`, softly limited to `limit`. Grey stays grey."""
    chroma = np.hypot(lab[..., 1], lab[..., 2]) + 1e-4
    out = lab.copy()
    out[..., 1:] *= (limit * np.tanh(chroma * factor / limit) / chroma)[..., None]
    return out


def nearest_inks(lab: Lab, codes: Sequence[str], temperature: float, weight_of_light: float) -> Lab:
    """The mean of the inks "#rrggbb", weighted by a softmax of their squared distance to `lab` over `temperature`."""
    inks = np.stack([hex_lab(code) for code in codes])
    scale = np.array([weight_of_light, 1.0, 1.0], np.float32)
    gap = (((lab[..., None, :] - inks) * scale) ** 2).sum(-1)
    weight = np.exp((gap.min(-1, keepdims=True) - gap) / temperature)
    weight /= weight.sum(-1, keepdims=True)
    return np.asarray(weight @ inks, np.float32)
