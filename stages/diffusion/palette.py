"""Palettes of printed styles: the colour of the lines, and a table of the colours in which paint is printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from warpfuse.engine.bundle_parts import Style
from warpfuse.engine.errors import BundleError

SIDE = 33
"""Entries of a table along red, green and blue. Between entries it is interpolated linearly."""

Table = npt.NDArray[np.float32]

_OPAQUE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """The palette of a prompt of styles.

    ink    colour of the lines, red, green, blue in [0, 1]: mean over the styles, weighted by share and lines
    lines  opacity of the lines over the paint, [0, 1]
    table  float32 [SIDE, SIDE, SIDE, 3], blue x green x red -> the printed colour, in [0, 1]; None: paint is unchanged
    """

    ink: tuple[float, float, float]
    lines: float
    table: Table | None


def palette_of(styles: Mapping[str, Style], shares: Mapping[str, float], tables: Mapping[str, Table]) -> Palette:
    """The palette of a blend of styles. Its table is the mean of their tables.

    shares  share of each style, of sum 1
    tables  tables of the styles that have one, as from `read_table`
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
    """The palette of a blend of palettes. shares: share of each, of sum 1."""
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
    """The table in a style's `lut` file. Raises BundleError for a wrong length."""
    data = path.read_bytes()
    if len(data) != 3 * SIDE**3:
        raise BundleError(f"{path}: expected {3 * SIDE**3} bytes, {SIDE}^3 colours, found {len(data)}. Export it again")
    table = np.frombuffer(data, np.uint8).reshape(SIDE, SIDE, SIDE, 3).transpose(2, 1, 0, 3)
    return np.ascontiguousarray(table.astype(np.float32) / np.float32(255))


@lru_cache(maxsize=1)
def _colours() -> Table:
    """The identity table."""
    axis = np.linspace(0, 1, SIDE, dtype=np.float32)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    table: Table = np.stack([red, green, blue], -1)
    table.flags.writeable = False
    return table
