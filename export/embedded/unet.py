"""The UNet: one look at a noised latent and at the clean latent of the source, and out comes the stylised x0.

The source is an input of its own, beside the noised latent (as in InstructPix2Pix); without it faces dissolve at high
noise. The output is `(1 - strength) * source + strength * styled`, strength being the sum of the style vector, and the
network is told the style alone, the vector divided by its sum: at strength 0 the source comes back exactly, whatever
the weights are, and between 0 and 1 the way is straight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .autoencoder import LATENT_CHANNELS, Enlarge, bend
from .strokes import PIXELS, STROKES, Strokes


class Modulate(nn.Linear):
    """h [n,c,h,w], condition [n,d] -> [n,c,h,w]: every channel scaled and shifted as the condition says."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__(condition, 2 * channels)
        nn.init.normal_(self.weight, std=0.3 / condition**0.5)
        nn.init.zeros_(self.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        """Same shape in and out."""
        scale, shift = super().forward(condition)[:, :, None, None].chunk(2, 1)
        out: Tensor = h * (1 + scale) + shift
        return out


class Block(nn.Module):
    """h [n,c,h,w], condition [n,d] -> [n,c,h,w]: a residual block whose input is modulated."""

    def __init__(self, channels: int, hidden: int, condition: int) -> None:
        super().__init__()
        self.modulate = Modulate(channels, condition)
        self.first = nn.Conv2d(channels, hidden, 3, padding=1)
        self.bend = bend()
        self.second = nn.Conv2d(hidden, channels, 3, padding=1)
        with torch.no_grad():
            nn.init.kaiming_normal_(self.first.weight, a=0.1)
            self.second.weight.mul_(0.2)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Same shape in and out."""
        out: Tensor = h + self.second(self.bend(self.first(self.modulate(h, condition))))
        return out


class TinyUNet(nn.Module):
    """x, source [n,C,h,w]; level [n,2] = (alpha, sigma); style [n,S] -> x0 [n,C,h,w], stylised.

    Any h and w from 2 up: what a halving rounds up is cropped after the enlargement. Most of it happens at half the
    latent's size, where a block costs a quarter.

    widths, hidden  channels at full, half and quarter size, and inside their blocks
    """

    light: Tensor

    def __init__(
        self,
        styles: int,
        widths: tuple[int, int, int] = (64, 160, 224),
        hidden: tuple[int, int, int] = (48, 128, 192),
        condition: int = 128,
    ) -> None:
        super().__init__()
        full, half, quarter = widths
        told = nn.Linear(2 + styles, condition), nn.Linear(condition, condition)
        self.condition = nn.Sequential(told[0], bend(), told[1], bend())
        self.bend = bend()
        self.enter = nn.Conv2d(2 * LATENT_CHANNELS, full, 3, padding=1)
        self.to_half = nn.Conv2d(full, half, 3, stride=2, padding=1)
        self.half_in = Block(half, hidden[1], condition)
        self.to_quarter = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.quarter = Block(quarter, hidden[2], condition)
        self.from_quarter = Enlarge(quarter, half)
        self.half_out = Block(half, hidden[1], condition)
        self.from_half = Enlarge(half, full)
        self.full_out = Block(full, hidden[0], condition)
        self.tint = Modulate(full, condition)
        self.leave = nn.Conv2d(full, LATENT_CHANNELS, 3, padding=1)
        self.strokes = Strokes()
        self.register_buffer("light", torch.zeros(PIXELS, LATENT_CHANNELS, 3, 3))
        self.brush = nn.Conv2d(STROKES, full, 1, bias=False)
        self.pressure = nn.Conv2d(full, STROKES, 1)
        self.relief = nn.Conv2d(STROKES, LATENT_CHANNELS, 1, bias=False)
        with torch.no_grad():
            for silent in (self.brush, self.relief):
                nn.init.zeros_(silent.weight)
            # a style is one number among eleven: at the usual start it would hardly be felt behind two layers
            nn.init.normal_(told[0].weight)
            for layer in (told[1], self.enter, self.to_half, self.to_quarter):
                nn.init.kaiming_normal_(layer.weight, a=0.1)
            self.leave.weight.mul_(0.1)

    def forward(self, x: Tensor, source: Tensor, level: Tensor, style: Tensor) -> Tensor:
        """One prediction of x0."""
        strength = style.sum(1, keepdim=True)
        c = self.condition(torch.cat([level, style / strength.clamp_min(1e-6)], 1))
        strokes = self._drawn(source)
        full = self.bend(self.enter(torch.cat([x, source], 1)) + self.brush(strokes))
        half = self.half_in(self.bend(self.to_half(full)), c)
        quarter = self.quarter(self.bend(self.to_quarter(half)), c)
        half = self.half_out(_join(half, self.from_quarter(quarter)), c)
        full = self.full_out(_join(full, self.from_half(half)), c)
        full = self.bend(self.tint(full, c))
        styled: Tensor = self.leave(full) + self.relief(strokes * self.pressure(full))
        s = strength[:, :, None, None]
        return (1 - s) * source + s * styled

    def _drawn(self, source: Tensor) -> Tensor:
        """The strokes of a source, which no convolution of the others could follow.  Nothing of them is trained."""
        with torch.no_grad(), torch.autocast(source.device.type, enabled=False):
            rimmed = nn.functional.pad(source, (1, 1, 1, 1), mode="replicate")
            strokes: Tensor = self.strokes(nn.functional.conv2d(rimmed, self.light))
        return strokes


def _join(fine: Tensor, coarse: Tensor) -> Tensor:
    """fine [n,c,h,w] + coarse [n,c,h or h+1,w or w+1], cropped to h x w."""
    return fine + coarse[:, :, : fine.shape[2], : fine.shape[3]]
