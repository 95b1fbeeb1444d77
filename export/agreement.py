"""The difference of written networks from torch in float32, and its table for the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Agreement:
    """Difference of one network on one target: the largest and the mean over its outputs, and the allowed values."""

    network: str
    target: str
    worst: float
    mean: float
    allowed: float
    allowed_mean: float

    @property
    def agrees(self) -> bool:
        """Both differences are within the allowed values. NaN is not."""
        return self.worst <= self.allowed and self.mean <= self.allowed_mean


def differences(found: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> tuple[float, float]:
    """(largest, mean) absolute difference over all outputs. found: arrays or CPU tensors by name."""
    gaps = [
        np.abs(np.asarray(found[name], dtype=np.float64) - tensor.double().numpy()).ravel()
        for name, tensor in wanted.items()
    ]
    every = np.concatenate(gaps)
    return float(every.max()), float(every.mean())


def psnr(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """PSNR of pictures in [0, 1], dB."""
    return float(-10 * np.log10(max(float(np.mean((a - b) ** 2)), 1e-12)))


def table(rows: Sequence[Agreement]) -> list[str]:
    """The lines of a table with aligned columns: a heading, then a line for each network and target."""
    cells = [["network", "target", "max error", "mean", "allowed", "mean", ""]]
    for row in rows:
        figures = [f"{value:.3g}" for value in (row.worst, row.mean, row.allowed, row.allowed_mean)]
        cells.append([row.network, row.target, *figures, "agrees" if row.agrees else "OVER THE TOLERANCE"])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
