"""The edge between a solver's levels and the network: how its input is scaled, what it is told, what its output means.

A network trained on a variance-preserving process can be solved in sigma space (alpha = 1, Karras et al. 2022): there
x_VE = x_VP / alpha with sigma_VE = sigma_VP / alpha, and the pair (x0, n) is the same in both. So only the edge knows:
the input is scaled back by 1 / sqrt(1 + s^2), the output is read at the variance-preserving level, and every
prediction type works through the one `clean_and_noise`.
"""

import math
from functools import cache

import torch
from torch import Tensor

from warpfuse.stages.solvers.levels import variance_preserving
from warpfuse.stages.solvers.pair import Level, clean, clean_and_noise


def seen_by_network(level: Level) -> Level:
    """The level as the network knows it: a sigma-space one made variance-preserving, any other as it is.

    alpha = 1 with noise is sigma space; variance-preserving and flow levels have alpha < 1 wherever there is noise.
    """
    return variance_preserving(level) if level.alpha == 1 else level


def network_input(x: Tensor, level: Level) -> Tensor:
    """What the network takes for x at `level`: x / sqrt(1 + s^2) in sigma space, else x itself. In the dtype of x."""
    if level.alpha != 1:
        return x
    return (seen_by_network(level).alpha * x.to(_wide(x))).to(x.dtype)


def split(x: Tensor, output: Tensor, level: Level, prediction: str) -> tuple[Tensor, Tensor]:
    """(x0, n) of x = alpha x0 + sigma n at `level`, from what the network said of `network_input(x, level)`.

    x, output   [b, c, h, w]; output in the network's own scaling
    prediction  "epsilon" | "v" | "sample" | "flow" (`pair.clean_and_noise`)

    In the dtype of x. Raises ValueError for an unknown prediction or a level at which it defines no pair.
    """
    wide = x.to(_wide(x, output))
    x0, n = clean_and_noise(network_input(wide, level), output, seen_by_network(level), prediction)
    return x0.to(x.dtype), n.to(x.dtype)


def split_clean(x: Tensor, output: Tensor, level: Level, prediction: str) -> tuple[Tensor, Tensor]:
    """The same for a step to sigma = 0, where nobody looks at n: it is NaN, and takes neither memory nor time."""
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
