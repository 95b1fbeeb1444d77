"""The named styles of the embedded bundle, in the order of the style vector."""

from __future__ import annotations

from .painters.styles import PAINTERS

STYLES = PAINTERS
DEFAULT_STYLE = "ukiyoe"


def one_hot(index: int, count: int = len(STYLES)) -> list[float]:
    """The vector of a style: 1 at its index. It can be scaled by the strength, and added to others with weights."""
    return [1.0 if i == index else 0.0 for i in range(count)]
