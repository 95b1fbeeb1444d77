"""The noise levels of the bundle: the scaled-linear, variance-preserving schedule of Stable Diffusion."""

from __future__ import annotations

import torch
from torch import Tensor

BETA_START, BETA_END, TRAIN_TIMESTEPS = 0.00085, 0.012, 1000


def alphas_and_sigmas() -> Tensor:
    """[1000,2]: (alpha, sigma) of every timestep, alpha^2 + sigma^2 = 1."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_TIMESTEPS, dtype=torch.float64) ** 2
    kept = torch.cumprod(1.0 - betas, 0)
    return torch.stack([kept.sqrt(), (1.0 - kept).sqrt()], 1).float()


def random_levels(table: Tensor, count: int) -> Tensor:
    """[count,2]: random rows of the table, with timesteps from 50, half of them from 600."""
    high = torch.rand(count) < 0.5
    timestep = torch.where(
        high, torch.randint(600, TRAIN_TIMESTEPS, (count,)), torch.randint(50, TRAIN_TIMESTEPS, (count,))
    )
    return table[timestep]
