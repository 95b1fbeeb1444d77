"""Random batches for training. All randomness is from the given generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .photographs import Picture, crop, jitter, to_tensor
from .plates import PAINTS, Plate
from .styles import STYLES

TURNED = 0.3  # share of crops that are rotated or flipped: lines stay typical then, but skies do not


@dataclass(frozen=True, slots=True)
class Painted:
    """Crops with the layers of their painters, in [0,1].

    source, paint, deep  [n,3,h,w]; deep is the target of later steps
    cover                [n,1,h,w], cover of the lines
    style                [n], index of the style
    """

    source: Tensor
    paint: Tensor
    deep: Tensor
    cover: Tensor
    style: Tensor


def photograph_crops(photos: Sequence[Picture], count: int, side: int, rng: np.random.Generator) -> Tensor:
    """rgb [count,3,side,side]: crops of random photographs, with random scale, mirroring and exposure."""
    return to_tensor([jitter(crop(photos[int(rng.integers(len(photos)))], side, rng, 4.0), rng) for _ in range(count)])


def paint_crops(plates: Sequence[Plate], count: int, side: int, rng: np.random.Generator) -> Tensor:
    """rgb [count,3,side,side] of paint layers; the plates must be at least `side` wide and high."""
    taken = [plates[int(rng.integers(len(plates)))].pictures for _ in range(count)]
    return to_tensor([crop(p[rng.integers(1, 1 + len(PAINTS))], side, rng) for p in taken])


def painted_crops(plates: Sequence[Plate], count: int, side: int, rng: np.random.Generator) -> Painted:
    """`count` squares of `side` pixels in random styles, half of them mirrored, some rotated.

    Painters do not depend on the position in the picture, so a crop may start anywhere.
    """
    taken, styles = [], []
    for _ in range(count):
        plate = plates[int(rng.integers(len(plates)))]
        style = int(rng.integers(len(STYLES)))
        h, w = plate.covers.shape[1:]
        cut = plate.crop(style, int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1)), side)
        mirrored, upset, aside = rng.random(3) < (0.5, TURNED / 2, TURNED / 2)
        turned = [p[:: -1 if upset else 1, :: -1 if mirrored else 1] for p in cut]
        taken.append([np.ascontiguousarray(p.swapaxes(0, 1) if aside else p) for p in turned])
        styles.append(style)
    *pictures, covers = zip(*taken, strict=True)
    source, paint, deep = (to_tensor(p) for p in pictures)
    return Painted(source, paint, deep, to_tensor([c[..., None] for c in covers]), torch.tensor(styles))


def window(rgb: Tensor, offset_px: Tensor, side: int) -> Tensor:
    """[n,c,side,side]: crops of rgb [n,c,h,w] at offset_px [n,2] (x, y), whole pixels, one for each picture."""
    corners = zip(rgb, offset_px.tolist(), strict=True)
    return torch.stack([picture[:, y : y + side, x : x + side] for picture, (x, y) in corners])


def shifted(rgb: Tensor, offset_px: Tensor) -> Tensor:
    """rgb [n,3,h,w] shifted by offset_px [n,2] (x, y), with bicubic interpolation and mirrored borders."""
    h, w = rgb.shape[2:]
    ys, xs = torch.meshgrid(torch.arange(h, dtype=rgb.dtype), torch.arange(w, dtype=rgb.dtype), indexing="ij")
    at = torch.stack([xs, ys], 2)[None] + offset_px[:, None, None, :]
    grid = at * (2.0 / torch.tensor([w - 1, h - 1], dtype=rgb.dtype)) - 1.0
    sample = nn.functional.grid_sample
    return sample(rgb.contiguous(), grid, mode="bicubic", padding_mode="reflection", align_corners=True)
