"""Support for tests of solvers: sampling a frame by a plan, and data with closed-form solutions."""

import math

import torch

from warpfuse.stages.solvers.network import network_input, split
from warpfuse.stages.solvers.pair import compose


def normal(*size, seed=0, dtype=torch.float64):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def drive(calls, x, network, noises=(), prediction="epsilon", seen=None):
    """The loop of `solver.py` for one frame. network(x, level as the network knows it) -> output."""
    memory, noises = (), iter(noises)
    for call in calls:
        x0, n = split(x, network(network_input(x, call.level), call.seen), call.level, prediction)
        z = next(noises) if call.needs_noise else None
        x0, n, memory = call.advance(x, x0, n, z, memory)
        x = compose(x0, n, call.level_next)
        if seen is not None and call.finished:
            seen.append((x, x0, n))
    return x


class Gaussian:
    """Data N(mu, s^2) for every value: the ideal denoiser and the ODE's solution in closed form.

    E[x0 | x] = mu + alpha s^2 / (alpha^2 s^2 + sigma^2) (x - alpha mu), and along the probability-flow ODE
    (x - alpha mu) / sqrt(alpha^2 s^2 + sigma^2) stands still.
    """

    def __init__(self, mu=0.3, s=0.5):
        self.mu, self.s = mu, s

    def std(self, level):
        return math.hypot(level.alpha * self.s, level.sigma)

    def says(self, x, level):
        """The ideal network of prediction "sample"."""
        gain = level.alpha * self.s**2 / self.std(level) ** 2
        return self.mu + gain * (x - level.alpha * self.mu)

    def velocity(self, x, level):
        """The ideal network of prediction "flow": n - x0."""
        x0 = self.says(x, level)
        return (x - level.alpha * x0) / level.sigma - x0

    def solution(self, x, level, end):
        return end.alpha * self.mu + self.std(end) / self.std(level) * (x - level.alpha * self.mu)
