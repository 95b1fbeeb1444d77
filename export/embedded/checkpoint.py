"""A training that can be taken up again: networks, optimiser, step and the seconds spent, in one file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from warpfuse.engine.files import written_whole

N = TypeVar("N", bound=nn.Module)


def save(path: Path, parts: Mapping[str, Any], step: int, seconds: float) -> None:
    """`parts` have a state_dict. Written beside and renamed, so that a stop never leaves half a file."""
    stored = {"step": step, "seconds": seconds, "parts": {k: v.state_dict() for k, v in parts.items()}}
    with written_whole(path) as beside:
        torch.save(stored, beside)


def load(path: Path, parts: Mapping[str, Any]) -> tuple[int, float]:
    """Fill `parts` and return (step, seconds); (0, 0.0) when there is no such file."""
    if not path.exists():
        return 0, 0.0
    stored = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(stored["parts"][name])
    return int(stored["step"]), float(stored["seconds"])


def average_of(network: N) -> N:
    """A copy to hold the running average of the weights."""
    average = copy.deepcopy(network)
    average.requires_grad_(False)
    return average


def channels_last(network: N) -> N:
    """`network`, its weights laid out with the channels innermost: convolutions on a CPU are faster so."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def update_average(average: nn.Module, network: nn.Module, step: int, keep: float = 0.999) -> None:
    """In place. The first steps forget faster, or the average would remember the random start."""
    keep = min(keep, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(weight, 1.0 - keep)
        for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
            kept.copy_(buffer)
