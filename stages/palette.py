"""What the styles of a prompt print with: the colour of their lines, and the inks of their paint as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from warpfuse.engine.bundle_parts import Inks, Style

SIDE = 33
"""Entries of a table along red, green and blue. Between them it is read linearly."""

Table = npt.NDArray[np.float32]

_LIGHTNESS = 0.75  # of a squared distance in Lab: inks are told apart by hue first
_OPAQUE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """What a prompt of styles prints with.

    ink    colour of the lines, red, green, blue in [0, 1]: the mean of the styles' by share and lines
    lines  how much of the lines is laid over the paint, [0, 1]
    table  float32 [SIDE, SIDE, SIDE, 3], blue x green x red -> the colour shown, in [0, 1]; None: the paint as it is
    """

    ink: tuple[float, float, float]
    lines: float
    table: Table | None


def palette_of(styles: Mapping[str, Style], shares: Mapping[str, float]) -> Palette:
    """The palette of a blend: styles by their shares, which add up to 1. A table of a blend is the mean of theirs."""
    parts = [(styles[name], share) for name, share in shares.items() if share > 0]
    lines = sum(share * style.lines for style, share in parts)
    red, green, blue = (
        sum(share * style.lines * style.ink[c] for style, share in parts) / max(lines, _OPAQUE) for c in range(3)
    )
    table: Table | None = None
    if any(style.inks is not None for style, _ in parts):
        table = np.zeros((SIDE, SIDE, SIDE, 3), np.float32)
        for style, share in parts:
            table += np.float32(share) * (_colours() if style.inks is None else ink_table(style.inks))
    return Palette((red, green, blue), lines, table)


@lru_cache(maxsize=64)
def ink_table(inks: Inks) -> Table:
    """Colour -> the inks it is printed in, mixed by how near they are; float32 [SIDE, SIDE, SIDE, 3], read-only.

        w_k = softmax_k( -|D (x - x_k)|^2 / temperature ),      D = diag(0.75, 1, 1)
        a, b = sum w_k (a_k, b_k),      L = (1 - shade) sum w_k L_k + shade L(x)

    in CIE L*a*b* of sRGB (D65). A soft nearest neighbour: flat inks with crisp borders that do not flicker.
    """
    wanted = np.asarray(inks.colours, np.float32)
    ink = cv2.cvtColor(wanted[None], cv2.COLOR_RGB2LAB)[0]
    lab = cv2.cvtColor(_colours().reshape(1, -1, 3), cv2.COLOR_RGB2LAB)[0]
    weight = np.array([_LIGHTNESS, 1, 1], np.float32)
    gap = (((lab[:, None] - ink) * weight) ** 2).sum(-1)
    share = np.exp(-(gap - gap.min(1, keepdims=True)) / np.float32(inks.temperature))
    mixed = (share / share.sum(1, keepdims=True)) @ ink
    mixed[:, 0] += np.float32(inks.shade) * (lab[:, 0] - mixed[:, 0])
    table: Table = cv2.cvtColor(mixed[None].astype(np.float32), cv2.COLOR_LAB2RGB)[0].clip(0, 1)
    table = table.reshape(SIDE, SIDE, SIDE, 3)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1)
def _colours() -> Table:
    """The table that changes nothing."""
    axis = np.linspace(0, 1, SIDE, dtype=np.float32)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    table: Table = np.stack([red, green, blue], -1)
    table.flags.writeable = False
    return table
