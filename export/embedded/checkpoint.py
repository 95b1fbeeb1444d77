"""What a training keeps in its folder: a log, and networks, optimiser, step and elapsed seconds in one file."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from warpfuse.engine.errors import BadInput
from warpfuse.engine.files import written_whole

N = TypeVar("N", bound=nn.Module)


def folder_of(out: Path, work: Path | None, resume: bool) -> Path:
    """The folder of the training that writes `out`: `work`, by default beside `out`. It is not made here.

    Raises BadInput: it exists, and `resume` is not given.
    """
    folder = work or out.with_name(out.name + ".work")
    if folder.exists() and not resume:
        raise BadInput(f"{folder} exists: give --resume to go on from it, or remove it")
    return folder


@contextmanager
def logged(folder: Path) -> Iterator[Callable[[str], None]]:
    """Make the folder of a training. Yields a function that prints a line and keeps it in `log.txt` there, behind the
    seconds since now."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with (folder / "log.txt").open("a", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(line, flush=True)
            log.write(f"{time.monotonic() - started:.0f} {line}\n")
            log.flush()

        yield say


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
