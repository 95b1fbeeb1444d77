"""Saving and resuming a training: networks, optimiser, step and elapsed seconds in one file."""

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
    """Save the state_dict of `parts`. The file is written under another name and renamed, so it is never incomplete."""
    stored = {"step": step, "seconds": seconds, "parts": {k: v.state_dict() for k, v in parts.items()}}
    with written_whole(path) as beside:
        torch.save(stored, beside)


def load(path: Path, parts: Mapping[str, Any]) -> tuple[int, float]:
    """Load the state of `parts`. Returns (step, seconds), or (0, 0.0) if there is no file."""
    if not path.exists():
        return 0, 0.0
    stored = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(stored["parts"][name])
    return int(stored["step"]), float(stored["seconds"])


def average_of(network: N) -> N:
    """A copy for the running average of the weights."""
    average = copy.deepcopy(network)
    average.requires_grad_(False)
    return average


def channels_last(network: N) -> N:
    """`network` with its weights in channels-last layout, which makes convolutions on a CPU faster."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def update_average(average: nn.Module, network: nn.Module, step: int, keep: float = 0.999) -> None:
    """Update the running average, in place. In the first steps it changes faster, to forget the random start."""
    keep = min(keep, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(weight, 1.0 - keep)
        for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
            kept.copy_(buffer)
