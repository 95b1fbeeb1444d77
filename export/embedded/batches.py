"""Random batches for the two trainings. Everything random comes from the generator given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .likeness import under_light, with_features
from .photographs import Picture, crop, jitter, to_tensor
from .plates import Plate

DIMMED = 0.3  # of all pairs
DARKEST = 0.06  # gain of the deepest night


def photograph_crops(photos: Sequence[Picture], count: int, side: int, rng: np.random.Generator) -> Tensor:
    """rgb [count,3,side,side]: any photograph, scale, side and exposure."""
    return to_tensor([jitter(crop(photos[int(rng.integers(len(photos)))], side, rng, 4.0), rng) for _ in range(count)])


def stylised_crops(plates: Sequence[Plate], count: int, side: int, rng: np.random.Generator) -> Tensor:
    """rgb [count,3,side,side] of stylised pictures; the plates must be at least `side` wide and high."""
    taken = [plates[int(rng.integers(len(plates)))].pictures for _ in range(count)]
    return to_tensor([crop(p[rng.integers(1, len(p))], side, rng) for p in taken])


def pairs(plates: Sequence[Plate], count: int, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(source, stylised rgb [count,3,side,side], style vector [count,S]); one in four at a strength below one.

    At strength u the vector is scaled by u and the target is the blend of the two pictures. Some sources are dimmed,
    and every target has the light and the features of its source (`likeness`).
    """
    sources, targets, vectors = [], [], []
    for _ in range(count):
        plate = plates[int(rng.integers(len(plates)))]
        k = int(rng.integers(len(plate.vectors)))
        h, w = plate.pictures.shape[1:3]
        y, x = int(rng.integers(0, h - side + 1)), int(rng.integers(0, w - side + 1))
        mirrored = -1 if rng.random() < 0.5 else 1
        sources.append(np.ascontiguousarray(plate.pictures[0, y : y + side, x : x + side][:, ::mirrored]))
        targets.append(np.ascontiguousarray(plate.pictures[1 + k, y : y + side, x : x + side][:, ::mirrored]))
        vectors.append(plate.vectors[k])
    strength = np.where(rng.random(count) < 0.25, rng.random(count), 1.0).astype(np.float32)
    u = torch.from_numpy(strength)
    source = dimmed(to_tensor(sources), rng)
    target = with_features(under_light(to_tensor(targets), source), source)
    return source, torch.lerp(source, target, u[:, None, None, None]), torch.from_numpy(np.stack(vectors)) * u[:, None]


def dimmed(rgb: Tensor, rng: np.random.Generator) -> Tensor:
    """rgb [n,3,h,w] in [0,1], some of them as a camera sees them at night: a gain, and the noise of its sensor."""
    each = (rgb.shape[0], 1, 1, 1)
    gain = np.where(rng.random(each) < DIMMED, np.exp(rng.uniform(np.log(DARKEST), np.log(0.7), each)), 1.0)
    noise = np.where(gain < 1.0, rng.uniform(0.0, 0.012, each), 0.0)
    grain = noise * rng.standard_normal(rgb.shape, dtype=np.float32)
    return (rgb * torch.from_numpy(gain).float() + torch.from_numpy(grain).float()).clamp(0.0, 1.0)


def window(rgb: Tensor, offset_px: Tensor, side: int) -> Tensor:
    """[n,3,side,side] of rgb [n,3,h,w], each from its own offset_px [n,2] (x, y), whole pixels within the picture."""
    corners = zip(rgb, offset_px.tolist(), strict=True)
    return torch.stack([picture[:, y : y + side, x : x + side] for picture, (x, y) in corners])


def shifted(rgb: Tensor, offset_px: Tensor) -> Tensor:
    """rgb [n,3,h,w] moved by offset_px [n,2] (x, y), bicubic as the product warps, mirrored at the borders."""
    h, w = rgb.shape[2:]
    ys, xs = torch.meshgrid(torch.arange(h, dtype=rgb.dtype), torch.arange(w, dtype=rgb.dtype), indexing="ij")
    at = torch.stack([xs, ys], 2)[None] + offset_px[:, None, None, :]
    grid = at * (2.0 / torch.tensor([w - 1, h - 1], dtype=rgb.dtype)) - 1.0
    sample = nn.functional.grid_sample
    return sample(rgb.contiguous(), grid, mode="bicubic", padding_mode="reflection", align_corners=True)
