"""Synthetic pages with text, lines and flat colour, as on screens and paper. The photographs have none of these."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .photographs import Picture, crop

ALPHABET = "aaabcddeeeeefghiiijklmnnoooprrssttuuvwyz"  # roughly with the frequencies in English
FACES = (
    cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX_SMALL, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)  # fmt: skip


def page(photos: Sequence[Picture], size: tuple[int, int], rng: np.random.Generator) -> Picture:
    """A random page of size (width, height): background, lines of text, rules and boxes, sometimes a photograph."""
    width, height = size
    ground, ink = _colours(rng)
    out = np.full((height, width, 3), ground, np.uint8)
    for _ in range(int(rng.integers(0, 4))):
        _box(out, rng)
    if rng.random() < 0.4:
        side = int(rng.uniform(0.3, 0.5) * min(size))
        y, x = int(rng.integers(0, height - side)), int(rng.integers(0, width - side))
        out[y : y + side, x : x + side] = crop(photos[int(rng.integers(len(photos)))], side, rng, 4.0)
    y = int(rng.uniform(10, 40))
    while y < height:
        scale, face = float(rng.uniform(0.35, 1.5)), FACES[int(rng.integers(len(FACES)))]
        y += round(34 * scale)
        if rng.random() < 0.85:
            line = _words(rng, 80)
            cv2.putText(out, line, (int(rng.uniform(4, 60)), y), face, scale, ink, 1 + (scale > 0.8), cv2.LINE_AA)
        elif rng.random() < 0.5:
            cv2.line(out, (0, y), (int(rng.uniform(0.3, 1) * width), y), ink, int(rng.integers(1, 4)), cv2.LINE_AA)
    return out


def _colours(rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """(background, ink): mostly black on white, sometimes inverted or coloured."""
    kind = rng.random()
    light, dark = rng.integers(232, 256, 3), rng.integers(0, 50, 3)
    if kind < 0.6:
        return light.tolist(), dark.tolist()
    if kind < 0.8:
        return dark.tolist(), light.tolist()
    return rng.integers(90, 230, 3).tolist(), dark.tolist()


def _box(out: Picture, rng: np.random.Generator) -> None:
    h, w = out.shape[:2]
    corner, size = rng.uniform(0, [w, h]), rng.uniform(0.1, 0.5) * np.array([w, h])
    colour = rng.integers(0, 256, 3).tolist()
    (x, y), (x_end, y_end) = corner.astype(int).tolist(), (corner + size).astype(int).tolist()
    thickness = -1 if rng.random() < 0.5 else int(rng.integers(1, 5))
    if rng.random() < 0.7:
        cv2.rectangle(out, (x, y), (x_end, y_end), colour, thickness, cv2.LINE_AA)
    else:
        cv2.circle(out, (x, y), int(min(size) / 2), colour, thickness, cv2.LINE_AA)


def _words(rng: np.random.Generator, letters: int) -> str:
    word = [rng.choice(list(ALPHABET), int(rng.integers(1, 10))) for _ in range(letters // 5)]
    text = " ".join("".join(letters) for letters in word)
    return text.upper() if rng.random() < 0.15 else text.capitalize()
