"""Plates as latents, encoded once: without encoder and decoder a step of the UNet costs a third."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .autoencoder import Encoder
from .photographs import to_tensor
from .plates import Plate

AT_ONCE = 4  # pictures


@dataclass(frozen=True, slots=True)
class LatentPlate:
    """Latents [1+K,16,h,w] in half precision, the source first, as they are and mirrored; vectors [K,S]."""

    straight: Tensor
    mirrored: Tensor
    vectors: Tensor


def encoded(plates: Sequence[Plate], encoder: Encoder) -> list[LatentPlate]:
    """Every plate through the encoder, both ways round: a mirrored latent is not the latent of the mirrored picture."""
    return [
        LatentPlate(
            _encode(plate.pictures, encoder),
            _encode(plate.pictures[:, :, ::-1], encoder),
            torch.from_numpy(plate.vectors),
        )
        for plate in plates
    ]


def latent_pairs(
    plates: Sequence[LatentPlate], count: int, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(source, stylised [count,16,side,side], style vector [count,S]); one in five at a strength below one."""
    sources, targets, vectors = [], [], []
    for _ in range(count):
        plate = plates[int(rng.integers(len(plates)))]
        z = plate.mirrored if rng.random() < 0.5 else plate.straight
        k = int(rng.integers(len(plate.vectors)))
        h, w = z.shape[2:]
        y, x = int(rng.integers(0, h - side + 1)), int(rng.integers(0, w - side + 1))
        sources.append(z[0, :, y : y + side, x : x + side])
        targets.append(z[1 + k, :, y : y + side, x : x + side])
        vectors.append(plate.vectors[k])
    u = torch.from_numpy(np.where(rng.random(count) < 0.2, rng.random(count), 1.0).astype(np.float32))
    source, target = torch.stack(sources).float(), torch.stack(targets).float()
    return source, torch.lerp(source, target, u[:, None, None, None]), torch.stack(vectors) * u[:, None]


def _encode(pictures: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], encoder: Encoder) -> Tensor:
    with torch.no_grad():
        return torch.cat(
            [encoder(to_tensor(list(pictures[i : i + AT_ONCE]))).half() for i in range(0, len(pictures), AT_ONCE)]
        )
