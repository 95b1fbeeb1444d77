"""Length, learning rate and steps of a training. A length in steps is repeatable, one in minutes ends on time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class Length:
    """Length of a training: `steps` if given, else `minutes`."""

    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: int, seconds: float) -> float:
        """Progress of the training: 0 at the start, 1 at the end."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        if self.minutes is None:
            raise ValueError("Length: expected steps or minutes, got neither")
        return min(1.0, seconds / (60.0 * self.minutes))


def learning_rate(progress: float, peak: float, warm_up: float = 0.02) -> float:
    """The learning rate: a linear rise during `warm_up`, then a cosine down to a fiftieth of the peak."""
    if progress < warm_up:
        return peak * (progress + 0.002) / (warm_up + 0.002)
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up))))


def descend(optimiser: Optimizer, loss: Tensor, rate: float, *networks: Iterable[nn.Parameter]) -> None:
    """Take one step down the loss at a learning rate. The gradient of each network is clipped to a norm of 1."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for parameters in networks:
        nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
