"""Plates: a photograph at some scale, or a page, with what the teacher makes of it in every style.

The teacher sees whole pictures, not crops: it normalises over what it sees, so a crop would get other colours.
Plates are kept on disk (uint8, memory-mapped), so that a training that is taken up again need not paint again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .documents import legible, page
from .photographs import Picture, jitter
from .styles import STYLES, one_hot
from .teacher import Teacher

LEAST_SIDE = 136  # pixels


@dataclass(frozen=True, slots=True)
class Plate:
    """A source and K stylised pictures of it."""

    pictures: NDArray[np.uint8]  # [1+K,h,w,3], the source first
    vectors: NDArray[np.float32]  # [K,S]: the style vector of each


def plates(
    folder: Path,
    photos: Sequence[Picture],
    paint: Teacher,
    variants: int,
    pages: int,
    sides: tuple[int, int],
    seed: int,
) -> list[Plate]:
    """`variants` plates of every photograph and some `pages`, long side within `sides`.

    What lies in `folder` is not painted again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for variant in range(variants):
        for i, photo in enumerate(photos):
            rng = np.random.default_rng([seed, variant, i])
            # well exposed: what is dark, the teacher would stretch; `pairs` dims both
            source = partial(_photograph, photo, _side(sides, rng), rng)
            made.append(_plate(folder / f"{variant:02d}_{i:04d}", source, paint, rng))
    for i in range(pages):
        rng = np.random.default_rng([seed, i])
        width = _side(sides, rng) // 8 * 8
        source = partial(page, photos, (width, max(LEAST_SIDE, int(width * rng.uniform(0.5, 1.0)) // 8 * 8)), rng)
        made.append(_plate(folder / f"page_{i:04d}", source, lambda s, v: legible(paint(s, v), s), rng))
    return made


def _photograph(photo: Picture, long_side: int, rng: np.random.Generator) -> Picture:
    return jitter(_scaled(photo, long_side), rng, dark=0.0)


def _side(sides: tuple[int, int], rng: np.random.Generator) -> int:
    return int(np.exp(rng.uniform(*np.log(sides))))


def _plate(stem: Path, draw: Callable[[], Picture], paint: Teacher, rng: np.random.Generator) -> Plate:
    vectors_at, pictures_at = stem.with_suffix(".vectors.npy"), stem.with_suffix(".pictures.npy")
    if not vectors_at.exists():
        source, vectors = draw(), _vectors(rng)
        np.save(pictures_at, np.stack([source, *[paint(source, v) for v in vectors]]))
        np.save(vectors_at, vectors)  # last: its presence says that the pictures are whole
    return Plate(np.load(pictures_at, mmap_mode="r"), np.load(vectors_at))


def _scaled(photo: Picture, long_side: int) -> Picture:
    """Sides become multiples of 8, the short one `LEAST_SIDE` or more: a training crop must fit."""
    h, w = photo.shape[:2]
    k = max(long_side / max(h, w), LEAST_SIDE / min(h, w))
    size = (max(8, round(w * k / 8) * 8), max(8, round(h * k / 8) * 8))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC).astype(np.uint8)


def _vectors(rng: np.random.Generator) -> NDArray[np.float32]:
    """Every style by itself, and one mixture of two."""
    pure = np.array([one_hot(i) for i in range(len(STYLES))], np.float32)
    a, b = rng.choice(len(STYLES), 2, replace=False)
    share = np.float32(rng.uniform(0.25, 0.75))
    mixed = share * pure[a] + (1 - share) * pure[b]
    return np.concatenate([pure, mixed[None]])
