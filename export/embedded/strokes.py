"""Texture drawn out along the edges of a picture, at half its size: what brush strokes and hatching hang on.

A convolution of fixed weights cannot follow an edge. Here the structure tensor of a place says how six convolutions,
one a direction, are mixed there (steerable filters, Freeman and Adelson 1991). Nothing of it is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, pad

SIDE = 4  # half-size pixels along a cell of the latent
PIXELS = SIDE * SIDE
STROKES = 2 * PIXELS  # channels
DIRECTIONS = 6
SQUARINGS = 2  # of the cosine that mixes them: half as much 16 degrees off
MEAN_SHARE = 3 / 16  # of the positive half of cos^4 over a turn
FINE, COARSE = 0.4, 1.3  # half-size pixels: Gaussians whose difference is the texture
SLOPE_SIGMA = 0.7  # half-size pixels
LENGTH, WIDTH = 2.4, 0.42  # half-size pixels: a direction's Gaussian, along and across
GROUND, SLANT = 2e-5, 0.35  # tensor and direction, radians, of empty ground
LEAST = 0.009  # texture that counts as full strokes, so that sensor noise makes none
DRAWN, MOST = 30.0, 1.8  # gain of the texture as it is, and its limit and that of the strokes
LUMA = (0.299, 0.587, 0.114)
FIXED = ("see", "mean", "spread", "turn", "draw", "add")  # convolutions of `Strokes`

Offsets = NDArray[np.float64]
Filter = Callable[[Offsets, Offsets], Offsets]  # of x and y, half-size pixels from its middle


class Strokes(nn.Module):
    """light [n,PIXELS,h,w], the half-size pixels of each cell -> [n,STROKES,h,w] in -MOST..MOST.

    First the texture over how much of it lies around, then the texture itself; both drawn out along the edges.
    """

    see: Tensor
    mean: Tensor
    spread: Tensor
    turn: Tensor
    draw: Tensor
    add: Tensor
    ground: Tensor

    def __init__(self) -> None:
        super().__init__()
        seen = np.concatenate([_filters(of) for of in (_texture, _slope_across, _slope_down)])
        self.register_buffer("see", torch.from_numpy(seen))
        self.register_buffer("mean", torch.full((1, PIXELS, 1, 1), 1.0 / PIXELS))
        self.register_buffer("spread", torch.from_numpy(_interpolation()))
        angle = 2.0 * math.pi * torch.arange(DIRECTIONS) / DIRECTIONS
        each = torch.eye(PIXELS)
        turned = torch.cat([torch.kron(f(angle)[:, None], -each) for f in (torch.cos, torch.sin)], 1)
        self.register_buffer("turn", turned[:, :, None, None])
        drawn = np.concatenate([_filters(partial(_stroke, k)) for k in range(DIRECTIONS)])
        self.register_buffer("draw", torch.from_numpy(drawn))
        self.register_buffer("add", each.repeat(1, DIRECTIONS)[:, :, None, None] / (DIRECTIONS * MEAN_SHARE))
        nx, ny = -math.sin(SLANT), math.cos(SLANT)
        self.register_buffer("ground", GROUND * torch.tensor([nx * nx - ny * ny, 2 * nx * ny])[:, None, None])

    def forward(self, light: Tensor) -> Tensor:
        """In single precision."""
        texture, across, down = conv2d(_rimmed(light), self.see).chunk(3, 1)
        drawn = conv2d(conv2d(_rimmed(texture), self.draw) * self._shares(across, down), self.add)
        around = avg_pool2d(_rimmed(conv2d(drawn * drawn, self.mean)), 3, 1)
        strokes = drawn / (conv2d(_rimmed(around), self.spread) + LEAST**2).sqrt()
        return torch.cat([strokes, DRAWN * drawn], 1).clamp(-MOST, MOST)

    def _shares(self, across: Tensor, down: Tensor) -> Tensor:
        """[n,DIRECTIONS*PIXELS,h,w]: how much of every direction a pixel takes, from the slopes of light."""
        products = across * across - down * down, 2.0 * across * down
        tensor = torch.cat([conv2d(product, self.mean) for product in products], 1)
        around = avg_pool2d(_rimmed(tensor), 3, 1)
        wide = avg_pool2d(_rimmed(around), 3, 1)
        tensor = tensor + 0.15 * around + 0.06 * wide + self.ground
        even, odd = (conv2d(_rimmed(x), self.spread) for x in tensor.chunk(2, 1))
        size = (even * even + odd * odd + 1e-14).sqrt()
        near = conv2d(torch.cat([even / size, odd / size], 1), self.turn).relu()
        for _ in range(SQUARINGS):  # by products, for a row of a batch has to have the bytes it has alone
            near = near * near
        return near


def half_size_light() -> Tensor:
    """[PIXELS,3,8,8]: a convolution of rgb by cells, to the mean luma of 2x2 pixels, for `Strokes`."""
    weight = torch.zeros(PIXELS, 3, 2 * SIDE, 2 * SIDE)
    for pixel in range(PIXELS):
        y, x = 2 * (pixel // SIDE), 2 * (pixel % SIDE)
        weight[pixel, :, y : y + 2, x : x + 2] = torch.tensor(LUMA)[:, None, None] / 4.0
    return weight


def _rimmed(x: Tensor) -> Tensor:
    """With its border cells repeated once around: a border of zeros would be an edge."""
    return pad(x, (1, 1, 1, 1), mode="replicate")


def _filters(of: Filter) -> NDArray[np.float32]:
    """[PIXELS,PIXELS,3,3]: `of` around every pixel of a cell, on 3x3 cells."""
    at = np.arange(3 * SIDE, dtype=np.float64)
    found = np.empty((PIXELS, 3 * SIDE, 3 * SIDE))
    for pixel in range(PIXELS):
        y, x = np.meshgrid(at - SIDE - pixel // SIDE, at - SIDE - pixel % SIDE, indexing="ij")
        found[pixel] = of(x, y)
    cells = found.reshape(PIXELS, 3, SIDE, 3, SIDE).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(cells.reshape(PIXELS, PIXELS, 3, 3), np.float32)


def _gaussian(u: Offsets, v: Offsets, along: float, across: float) -> Offsets:
    g = np.exp(-(u**2) / (2 * along**2) - v**2 / (2 * across**2))
    return np.asarray(g / g.sum())


def _texture(x: Offsets, y: Offsets) -> Offsets:
    return _gaussian(x, y, FINE, FINE) - _gaussian(x, y, COARSE, COARSE)


def _slope_across(x: Offsets, y: Offsets) -> Offsets:
    """Of light towards greater x, a full-size pixel."""
    g = x * _gaussian(x, y, SLOPE_SIGMA, SLOPE_SIGMA)
    return np.asarray(g / (2 * (g * x).sum()))


def _slope_down(x: Offsets, y: Offsets) -> Offsets:
    return _slope_across(y, x)


def _stroke(k: int, x: Offsets, y: Offsets) -> Offsets:
    """A Gaussian along direction k of DIRECTIONS."""
    angle = math.pi * k / DIRECTIONS
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    g = _gaussian(u, v, LENGTH, WIDTH) * ((np.abs(x) <= SIDE) & (np.abs(y) <= SIDE))  # as far on both sides everywhere
    return np.asarray(g / g.sum())


def _interpolation() -> NDArray[np.float32]:
    """[PIXELS,1,3,3]: a value of every cell to its pixels, smoothly."""
    centre = np.array([-SIDE, 0, SIDE]) + (SIDE - 1) / 2
    found = np.empty((PIXELS, 1, 3, 3), np.float32)
    for pixel in range(PIXELS):
        y, x = np.meshgrid(centre - pixel // SIDE, centre - pixel % SIDE, indexing="ij")
        found[pixel, 0] = _gaussian(x, y, 0.45 * SIDE, 0.45 * SIDE)
    return found
