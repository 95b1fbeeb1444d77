"""The solvers of warpfuse with ComfyUI's model, with fusion between steps and at the end. It is exact for any order.

ComfyUI's convention is x = x0 + s n for epsilon and v models, x = (1 - s) x0 + s n for flow models, and the model
returns x0. Solvers with variance-preserving levels get x / sqrt(1 + s^2), with the same pair (x0, n).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warpfuse.comfy.latent_motion import LatentMotion, Reference, at_latents, chained, pull_latents
from warpfuse.comfy.motion import ClipMotion
from warpfuse.engine.errors import BadInput
from warpfuse.stages.diffusion.noise import Noises, after_call
from warpfuse.stages.diffusion.settings import W_MAX, NoisePolicy
from warpfuse.stages.solvers import Call, open_solver
from warpfuse.stages.solvers.levels import CLEAN, Level, variance_preserving
from warpfuse.stages.solvers.pair import compose, fuse

SOLVERS = ("auto", "euler", "euler_ancestral", "heun", "ddim", "turbo", "rectified_flow")
"""auto is euler, and rectified_flow for flow models. turbo is ComfyUI's lcm: its LCM models include the boundary
condition."""

Denoise = Callable[[Tensor, float], Tensor]
"""(x, sigma) in ComfyUI's convention -> x0 of every frame."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """Settings of `solve`.

    solver     one of `SOLVERS`
    noise      noise of a reference (`stages.diffusion.noise`)
    weight     0..1: share of the reference between steps
    exit       0..1: share of the reference at the end
    window     (highest, lowest) sigma of the calls after which frames are fused
    reference  the frame with which a frame is fused
    """

    solver: str = "auto"
    noise: NoisePolicy = "model"
    weight: float = 0.8
    exit: float = 0.8
    window: tuple[float, float] = (float("inf"), 0.0)
    reference: Reference = "previous"


def solve(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    settings: SamplerSettings,
    motion: ClipMotion | None,
    seed: int,
    is_flow: bool,
    each: Callable[[int, Tensor, Tensor], None],
) -> Tensor:
    """Sample a batch of frames, [B, c, h, w]. Returns it at the last sigma, in ComfyUI's convention.

    x       latents at sigmas[0]
    motion  motion of the frames; None: no fusion
    seed    seed of the fixed noise for the solver and the noise policy, the same for every frame
    each    is called with (network calls made, x, x0)

    Raises BadInput.
    """
    if len(sigmas) < 2:
        return x
    solver = open_solver(_solver_name(settings.solver, is_flow))
    levels = [_level(sigma, is_flow, solver.space) for sigma in sigmas]
    plan = solver.plan(levels[:-1], levels[-1])
    noises = Noises(seed, x.device)
    fusion = None
    if motion is not None and len(x) > 1:
        along = at_latents(motion, len(x), (x.shape[-2], x.shape[-1]), settings.reference).to(x.device)
        fusion = _Fusion(along, settings, noises)
    x = plan[0].level.alpha * x if solver.space == "vp" else x
    memory: Any = ()
    step = 0
    for k, call in enumerate(plan):
        sigma = call.level.sigma / call.level.alpha if solver.space == "vp" else call.level.sigma
        x0 = denoise(x / call.level.alpha if solver.space == "vp" else x, sigma).to(x.dtype)
        each(k, x, x0)
        n = (x - call.level.alpha * x0) / call.level.sigma
        step += call.finished
        z = noises.slot(step, x[:1].shape).to(x).expand_as(x) if call.needs_noise else None
        x0, n, memory = call.advance(x, x0, n, z, memory)
        weight = 0.0 if fusion is None else fusion.weight(call, sigma, k + 1 == len(plan))
        if fusion is None or not weight:
            x = compose(x0, n, call.level_next)
        else:
            x = fusion.fused(x0, n, call, step, min(weight, W_MAX))
    end = plan[-1].level_next
    return x / end.alpha if solver.space == "vp" else x


@dataclass(frozen=True, slots=True)
class _Fusion:
    """Fusion of a batch of frames after the calls of a solver."""

    motion: LatentMotion
    settings: SamplerSettings
    noises: Noises

    def weight(self, call: Call, sigma: float, last: bool) -> float:
        """The share of the reference after a call; 0 within a step, where the solver would undo fusion."""
        if not call.finished:
            return 0.0
        if last:
            return self.settings.exit
        highest, lowest = self.settings.window
        return self.settings.weight if lowest <= sigma <= highest else 0.0

    def fused(self, x0: Tensor, n: Tensor, call: Call, step: int, weight: float) -> Tensor:
        """The batch at the next level, with every frame fused with its reference."""
        rows: list[Tensor] = []

        def one(i: int, pulled: Tensor | None) -> Tensor:
            own, own_n = x0[i : i + 1], n[i : i + 1]
            if pulled is None:
                rows.append(compose(own, own_n, call.level_next))
                return own
            w = weight * self.motion.trust[i : i + 1]
            n_ref, rho = after_call(self.settings.noise, self.noises, i, step, call, own_n)
            rows.append(fuse(own, own_n, pulled, n_ref, w, rho, call.level_next))
            return fuse(own, None, pulled, None, w, 0.0, CLEAN)

        chained(x0, one, pull_latents(self.motion), self.settings.reference)
        return torch.cat(rows)


def _solver_name(asked: str, is_flow: bool) -> str:
    if asked == "auto":
        return "rectified_flow" if is_flow else "euler"
    if is_flow != (asked == "rectified_flow"):
        kind, fit = ("a flow", "rectified_flow") if is_flow else ("one of epsilon or v", "another than rectified_flow")
        raise BadInput(f"solver {asked!r} does not fit this model, which is {kind}: take {fit}, or auto")
    return asked


def _level(sigma: float, is_flow: bool, space: str) -> Level:
    level = Level(1 - sigma if is_flow else 1.0, sigma, 0.0)
    return variance_preserving(level) if space == "vp" else level
