"""The line block: the cover of the key line at full size, from the source picture and the styled latent.

An eightfold latent cannot place a line two pixels wide, and a paler line is what an L1 loss makes of one that cannot be
placed.  The block thresholds a band pass of every pixel, so it starts as the line drawing that the painters make.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .autoencoder import DOWNSCALE, LATENT_CHANNELS, Enlarge, bend
from .strokes import STROKES, Strokes, half_size_light

CELL = 4  # pixels: the block works at a quarter of the size, all pixels of a cell being channels
PIXELS = CELL * CELL
FREE = 16  # channels that start as line detectors of eight directions, long and short
HIDDEN = 16  # one block of the processors that compute sixteen channels at once
TAPS = 12  # pixels
NEAR, FAR = 1.2, 2.04  # pixels: Gaussians whose difference is the band pass
LUMA = (0.299, 0.587, 0.114)
SLIGHT = 1e-6  # share of a blend from which on its lines are drawn
LEAK = 0.05  # of what leaves 0..1, while training: without it a pixel that is sure learns no more


Start = tuple[float, float, float]
"""(band, luma, offset): the cover of a style starts as band * its band pass + luma * its luma + offset."""


class LineBlock(nn.Module):
    """rgb [n,3,8h,8w] of the source in 0..1, styled latent [n,C,h,w], style [n,S] of sum 1 -> cover [n,1,8h,8w].

    starts  where the cover of each style starts; None: it is 0 for good, and in a blend the others alone decide
    """

    drawn: Tensor
    light: Tensor

    def __init__(self, starts: Sequence[Start | None]) -> None:
        super().__init__()
        width = PIXELS + FREE
        self.luma = nn.Conv2d(3, PIXELS, CELL, stride=CELL)  # the luma of each pixel of a cell, a channel each
        self.see = nn.Conv2d(PIXELS, 2 * PIXELS + FREE, TAPS // CELL, padding=1)
        self.threshold = nn.Parameter(torch.zeros(len(starts), 3 * PIXELS))  # of the band pass, by style
        self.told = nn.Parameter(torch.zeros(len(starts), 2 * width))  # scales and shifts, by style
        self.up = Enlarge(LATENT_CHANNELS, width)
        self.strokes = Strokes()
        self.register_buffer("light", half_size_light())
        self.hatched = nn.Parameter(torch.ones(len(starts), STROKES))  # how much the strokes say, by style
        self.hatch = Enlarge(STROKES, width)
        self.first = nn.Conv2d(width, HIDDEN, 3, padding=2, dilation=2)
        self.second = nn.Conv2d(HIDDEN, width, 3, padding=1)
        self.leave = nn.Conv2d(width, PIXELS, 3, padding=1)
        self.bend = bend()
        self.register_buffer("drawn", torch.tensor([float(s is not None) for s in starts])[:, None])
        self._start(starts)

    def forward(self, rgb: Tensor, latent: Tensor, style: Tensor) -> Tensor:
        """The cover, clipped to 0..1."""
        share = style @ self.drawn
        drawing = share.clamp_min(SLIGHT)
        style = style * self.drawn[:, 0] / drawing
        with torch.autocast(rgb.device.type, enabled=False):  # a gain of fifty shows what bfloat16 rounds
            band, luma, free = self.see(self.luma(rgb)).split([PIXELS, PIXELS, FREE], 1)
            gain, weight, offset = (style @ self.threshold)[:, :, None, None].chunk(3, 1)
            line = self._clipped(gain * band + weight * luma + offset)
            strokes = self.strokes(nn.functional.conv2d(rgb, self.light, stride=DOWNSCALE))
        scale, shift = (style @ self.told)[:, :, None, None].chunk(2, 1)
        h = torch.cat([line, self.bend(free)], 1) * (1 + scale) + shift + self.up(latent)
        h = h + self.hatch(strokes * (style @ self.hatched)[:, :, None, None])
        h = h + self.second(self.bend(self.first(h)))
        cover = nn.functional.pixel_shuffle(self.leave(self.bend(h)), CELL)
        return self._clipped(cover) * (share / drawing)[:, :, None, None]

    def _clipped(self, x: Tensor) -> Tensor:
        clipped = x.clamp(0.0, 1.0)
        return clipped + LEAK * (x - clipped) if self.training else clipped

    def _start(self, starts: Sequence[Start | None]) -> None:
        with torch.no_grad():
            pixels = torch.eye(PIXELS).view(PIXELS, 1, CELL, CELL)
            self.luma.weight.copy_(torch.tensor(LUMA).view(1, 3, 1, 1) * pixels)
            nn.init.zeros_(self.luma.bias)  # type: ignore[arg-type]
            nn.init.zeros_(self.see.bias)  # type: ignore[arg-type]
            seen = torch.from_numpy(np.stack([*_bands(), *_gaussians(NEAR), *_directions()]))
            self.see.weight.copy_(nn.functional.pixel_unshuffle(seen[:, None], CELL))
            per_style = torch.tensor([start or (0.0, 0.0, 0.0) for start in starts])
            self.threshold.copy_(per_style.repeat_interleave(PIXELS, 1))
            self.up.weight.mul_(0.2)
            nn.init.zeros_(self.hatch.weight)
            self.second.weight.mul_(0.1)
            self.leave.weight.mul_(0.1)
            nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
            for pixel in range(PIXELS):
                self.leave.weight[pixel, pixel, 1, 1] += 1.0


def _gaussians(sigma: float) -> list[NDArray[np.float32]]:
    """A Gaussian of sum 1 around every pixel of the cell, in the window of TAPS pixels."""
    y, x = np.mgrid[:TAPS, :TAPS]
    corner = (TAPS - CELL) // 2
    found = []
    for pixel in range(PIXELS):
        cy, cx = corner + pixel // CELL, corner + pixel % CELL
        g = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2))
        found.append((g / g.sum()).astype(np.float32))
    return found


def _bands() -> list[NDArray[np.float32]]:
    """The wide Gaussian less the narrow one: above 0 on dark lines."""
    return [far - near for far, near in zip(_gaussians(FAR), _gaussians(NEAR), strict=True)]


def _directions() -> list[NDArray[np.float32]]:
    """Dark-line detectors through the middle of the cell: eight directions, two lengths."""
    y, x = np.mgrid[:TAPS, :TAPS] - (TAPS - 1) / 2
    found = []
    for length in (1.8, 3.2):
        for k in range(FREE // 2):
            angle = np.pi * k / (FREE // 2)
            u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            line, ground = (np.exp(-(v**2) / (2 * s * s) - u**2 / (2 * length**2)) for s in (NEAR, FAR))
            found.append((20.0 * (ground / ground.sum() - line / line.sum())).astype(np.float32))
    return found
