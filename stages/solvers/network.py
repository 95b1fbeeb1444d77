"""Conversions between a solver's levels and the network: scaling of the input, its level, meaning of the output.

A network trained on a variance-preserving process can be solved in sigma space (alpha = 1, Karras et al. 2022). There
x_VE = x_VP / alpha and sigma_VE = sigma_VP / alpha, and the pair (x0, n) is the same. So the conversion concerns this
file only: the input is scaled by 1 / sqrt(1 + s^2), and the output is interpreted at the variance-preserving level, by
the same `clean_and_noise` for every prediction type.
"""

import math
from functools import cache

import torch
from torch import Tensor

from warpfuse.stages.solvers.levels import Level, variance_preserving
from warpfuse.stages.solvers.pair import clean, clean_and_noise


def seen_by_network(level: Level) -> Level:
    """The level for the network: the variance-preserving form of a sigma-space level, any other level unchanged.

    alpha = 1 with noise means sigma space, since variance-preserving and flow levels with noise have alpha < 1.
    """
    return variance_preserving(level) if level.alpha == 1 else level


def network_input(x: Tensor, level: Level) -> Tensor:
    """The network's input for x at `level`: x / sqrt(1 + s^2) in sigma space, else x itself. It has the dtype of x."""
    if level.alpha != 1:
        return x
    return (seen_by_network(level).alpha * x.to(_wide(x))).to(x.dtype)


def split(x: Tensor, output: Tensor, level: Level, prediction: str) -> tuple[Tensor, Tensor]:
    """(x0, n) of x = alpha x0 + sigma n at `level`, from the network's output for `network_input(x, level)`.

    x, output   [b, c, h, w]; output in the network's own scaling
    prediction  "epsilon" | "v" | "sample" | "flow" (`pair.clean_and_noise`)

    The results have the dtype of x. Raises ValueError for an unknown prediction or a level at which it defines no pair.
    """
    wide = x.to(_wide(x, output))
    x0, n = clean_and_noise(network_input(wide, level), output, seen_by_network(level), prediction)
    return x0.to(x.dtype), n.to(x.dtype)


def split_clean(x: Tensor, output: Tensor, level: Level, prediction: str) -> tuple[Tensor, Tensor]:
    """As `split`, for a step to sigma = 0, which does not use n. The n returned is NaN and costs no memory or time."""
    wide = x.to(_wide(x, output))
    x0 = clean(network_input(wide, level), output, seen_by_network(level), prediction).to(x.dtype)
    return x0, _unknown(x0.dtype, x0.device).expand_as(x0)


@cache
def _unknown(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((), math.nan, dtype=dtype, device=device)


def _wide(*tensors: Tensor) -> torch.dtype:
    wide = torch.float32
    for tensor in tensors:
        wide = torch.promote_types(wide, tensor.dtype)
    return wide
