"""What the styles of a prompt print with: the colour of their lines, and the inks of their paint as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from warpfuse.engine.bundle_parts import Style
from warpfuse.engine.errors import BundleError

SIDE = 33
"""Entries of a table along red, green and blue. Between them it is read linearly."""

Table = npt.NDArray[np.float32]

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


def palette_of(styles: Mapping[str, Style], shares: Mapping[str, float], tables: Mapping[str, Table]) -> Palette:
    """The palette of a blend: styles by their shares, which add up to 1. A table of a blend is the mean of theirs.

    tables  of the styles that have one, as `read_table` gives them
    """
    parts = [(styles[name], share) for name, share in shares.items() if share > 0]
    lines = sum(share * style.lines for style, share in parts)
    red, green, blue = (
        sum(share * style.lines * style.ink[c] for style, share in parts) / max(lines, _OPAQUE) for c in range(3)
    )
    table: Table | None = None
    shown = {name: share for name, share in shares.items() if share > 0}
    if any(name in tables for name in shown):
        table = np.zeros((SIDE, SIDE, SIDE, 3), np.float32)
        for name, share in shown.items():
            table += np.float32(share) * tables.get(name, _colours())
    return Palette((red, green, blue), lines, table)


def mean_palette(palettes: Sequence[Palette], shares: Sequence[float]) -> Palette:
    """The palette of a blend of blends. shares: of each, adding up to 1."""
    parts = list(zip(palettes, shares, strict=True))
    lines = sum(share * one.lines for one, share in parts)
    red, green, blue = (
        sum(share * one.lines * one.ink[c] for one, share in parts) / max(lines, _OPAQUE) for c in range(3)
    )
    table: Table | None = None
    if any(one.table is not None for one in palettes):
        table = np.zeros((SIDE, SIDE, SIDE, 3), np.float32)
        for one, share in parts:
            table += np.float32(share) * (_colours() if one.table is None else one.table)
    return Palette((red, green, blue), lines, table)


def read_table(path: Path) -> Table:
    """The table of a style's `lut` file. Raises BundleError for one of another length."""
    data = path.read_bytes()
    if len(data) != 3 * SIDE**3:
        raise BundleError(f"{path}: expected {3 * SIDE**3} bytes, {SIDE}^3 colours, found {len(data)}. Export it again")
    table = np.frombuffer(data, np.uint8).reshape(SIDE, SIDE, SIDE, 3).transpose(2, 1, 0, 3)
    return np.ascontiguousarray(table.astype(np.float32) / np.float32(255))


@lru_cache(maxsize=1)
def _colours() -> Table:
    """The table that changes nothing."""
    axis = np.linspace(0, 1, SIDE, dtype=np.float32)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    table: Table = np.stack([red, green, blue], -1)
    table.flags.writeable = False
    return table
