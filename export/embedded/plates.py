"""Plates: a photograph at some scale, or a page, with the layers of every painter.

Painters need whole pictures, not crops. Plates are kept on disk (uint8, memory-mapped), so that a resumed training need
not paint again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from warpfuse.engine.files import written_whole

from .documents import page
from .painters.structure import deepened, structure
from .painters.styles import MARGIN, PAINTERS, deep_paint, layers, padded, trimmed
from .photographs import Picture, jitter

LEAST_SIDE = 136  # pixels
DARK = 0.25  # share of photographs that are darkened before painting, for night pictures
PAINTS = list(dict.fromkeys(p.paint for p in PAINTERS))  # the different paint layers; several styles share one


@dataclass(frozen=True, slots=True)
class Plate:
    """A source with its paint layers and the covers of all styles.

    pictures  [1+2P,h,w,3]: the source, then the paint of each of PAINTS, then the target of later steps for each
    covers    [S,h,w], for each of PAINTERS
    """

    pictures: NDArray[np.uint8]
    covers: NDArray[np.uint8]

    def crop(self, style: int, y: int, x: int, side: int) -> tuple[Picture, Picture, Picture, NDArray[np.uint8]]:
        """(source, paint, deep paint, cover) of a square of `side` pixels at (x, y), for the style with this index."""
        inside = np.s_[y : y + side, x : x + side]
        paint = 1 + PAINTS.index(PAINTERS[style].paint)
        source, first, deep = (self.pictures[i][inside] for i in (0, paint, paint + len(PAINTS)))
        return source, first, deep, self.covers[style][inside]


def plates(
    folder: Path, photos: Sequence[Picture], variants: int, pages: int, sides: tuple[int, int], seed: int
) -> Iterator[Plate]:
    """Yield `variants` plates of every photograph and `pages` plates of pages, with long sides within `sides`.

    Plates that exist in `folder` are not painted again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for variant in range(variants):
        for i, photo in enumerate(photos):
            rng = np.random.default_rng([seed, variant, i])
            yield _plate(folder / f"{variant:02d}_{i:04d}", partial(_photograph, photo, sides, rng))
    for i in range(pages):
        rng = np.random.default_rng([seed, i])
        yield _plate(folder / f"page_{i:04d}", partial(_page, photos, sides, rng))


def painted(source: Picture) -> Plate:
    """`source` in every style."""
    found = structure(padded(source.astype(np.float32) / np.float32(255)))
    made = [trimmed(layers(p, found)) for p in PAINTERS]
    first = {p.paint: m.paint for p, m in zip(reversed(PAINTERS), reversed(made), strict=True)}
    deep, inside = deepened(found), np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    last = {paint: deep_paint(paint, deep)[inside] for paint in PAINTS}
    pictures = [source, *[_bytes(of[paint]) for of in (first, last) for paint in PAINTS]]
    return Plate(np.stack(pictures), np.stack([_bytes(m.cover) for m in made]))


def _photograph(photo: Picture, sides: tuple[int, int], rng: np.random.Generator) -> Picture:
    return jitter(_scaled(photo, _side(sides, rng)), rng, dark=DARK)


def _page(photos: Sequence[Picture], sides: tuple[int, int], rng: np.random.Generator) -> Picture:
    width = _side(sides, rng) // 8 * 8
    return page(photos, (width, max(LEAST_SIDE, int(width * rng.uniform(0.5, 1.0)) // 8 * 8)), rng)


def _side(sides: tuple[int, int], rng: np.random.Generator) -> int:
    return int(np.exp(rng.uniform(*np.log(sides))))


def _plate(stem: Path, draw: Callable[[], Picture]) -> Plate:
    pictures_at, covers_at = stem.with_suffix(".pictures.npy"), stem.with_suffix(".covers.npy")
    if not covers_at.exists() or len(np.load(pictures_at, mmap_mode="r")) != 1 + 2 * len(PAINTS):
        plate = painted(draw())
        np.save(pictures_at, plate.pictures)
        with written_whole(covers_at) as fresh, fresh.open("wb") as file:  # last: it marks the plate as complete
            np.save(file, plate.covers)
    return Plate(np.load(pictures_at, mmap_mode="r"), np.load(covers_at, mmap_mode="r"))


def _scaled(photo: Picture, long_side: int) -> Picture:
    """The photograph scaled to sides that are multiples of 8, and at least `LEAST_SIDE` for training crops."""
    h, w = photo.shape[:2]
    k = max(long_side / max(h, w), LEAST_SIDE / min(h, w))
    size = (max(8, round(w * k / 8) * 8), max(8, round(h * k / 8) * 8))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC).astype(np.uint8)


def _bytes(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(x * 255.0 + 0.5, np.uint8)
