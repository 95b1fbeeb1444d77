"""Fusion in any sampler of ComfyUI, by a hook after classifier-free guidance.

A sampler gets only D, the predicted clean latent. If D were replaced by the fused x0', the noise (x - D) / sigma that
the sampler computes would change with it. The following D makes one step of a first-order sampler end at
`x' = alpha' x0' + sigma' n` with the model's own noise n:

    D = x0 + g (x0' - x0)

    Euler, DDIM       x' = (s'/s) x + (1 - s'/s) D                        g = a(s') / (1 - s'/s)
    ancestral         the same to s_down < s', then fresh noise           g = a(s_down) / (1 - s_down/s)
    LCM, re-noising   x' = a(s') D + s' z                                 g = 1
    the last step     x' = D                                              g = 1

with a(s) = 1 for epsilon and v models, and 1 - s for flow models. Samplers of higher order combine several D, so for
them it is approximate.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from warpfuse.comfy.latent_motion import (
    LatentMotion,
    Picture,
    Reference,
    at_latents,
    chained,
    pull_latents,
    pull_pictures,
)
from warpfuse.comfy.motion import ClipMotion
from warpfuse.engine.errors import BadInput

Step = Literal["euler", "ancestral", "renoise"]

STEPS: dict[str, Step] = {
    "sample_euler": "euler",  # ddim too: ComfyUI runs it by this function
    "sample_euler_ancestral": "ancestral",
    "sample_lcm": "renoise",
}
"""The kind of step of ComfyUI's first-order samplers, by the name of the sampler's function."""

TOLD = "warpfuse_step"
"""Key of `transformer_options` by which `tell_step` passes (step, eta) to the hook."""

_LOG = logging.getLogger("warpfuse")


def gain(step: Step, sigma: float, after: float, flow: bool, eta: float = 1.0) -> float:
    """g of the table above.

    sigma, after  sigma of this step and of the next, after < sigma
    flow          the model is a rectified flow: alpha = 1 - sigma
    eta           for ancestral steps: share of fresh noise
    """
    if after == 0 or step == "renoise":
        return 1.0
    down = after
    if step == "ancestral":
        if flow:
            down = after * (1 + (after / sigma - 1) * eta)
        else:
            up = min(after, eta * (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5)
            down = (after**2 - up**2) ** 0.5
    if down == 0:
        return 1.0
    return (1 - down if flow else 1.0) / (1 - down / sigma)


def step_of(function: Any, options: Mapping[str, Any]) -> tuple[Step, float, bool]:
    """(step, eta, exact) of a sampler of ComfyUI. function, options: its function and its options."""
    name = getattr(function, "__name__", "")
    exact = name in STEPS and not options.get("s_churn", 0.0)
    return STEPS.get(name, "euler"), float(options.get("eta", 1.0)), exact


def tell_step(executor: Any, *args: Any, **more: Any) -> Any:
    """Wrapper of ComfyUI's `Sampler.sample` that passes the sampler's kind of step to the hook."""
    sampler, extra_args = executor.class_obj, args[2]
    function = getattr(sampler, "sampler_function", None)
    step, eta, exact = step_of(function, getattr(sampler, "extra_options", {}))
    if not exact:
        _LOG.warning(
            "WarpfuseFuseModel: sampler %s is not of first order as ComfyUI runs it, so fusion is approximate here. "
            "Exact are euler, ddim, euler_ancestral, lcm and WarpfuseSampler",
            getattr(function, "__name__", type(sampler).__name__),
        )
    extra_args["model_options"]["transformer_options"][TOLD] = step, eta
    return executor(*args, **more)


@dataclass
class FuseModel:
    """The hook: `set_model_sampler_post_cfg_function(FuseModel(...))`.

    motion     motion of the frames
    weight     0..1: share of the reference where it is trusted; 0 leaves D unchanged, bit for bit
    window     (start, end) of fusion as shares of the sampling, 0..1
    reference  the frame with which a frame is fused
    kappa      "auto": by the sampler; "1": the sampler adds new noise at every step
    is_flow    (model_sampling) -> it is a rectified flow
    pictures   (model) -> (decode, encode) in the model's scale, for references that are warped as pictures; None: they
               are warped as latents

    It is called with a batch of as many frames as the motion has.
    """

    motion: ClipMotion
    weight: float
    window: tuple[float, float]
    reference: Reference
    kappa: Literal["auto", "1"]
    is_flow: Callable[[Any], bool]
    pictures: Callable[[Any], tuple[Picture, Picture]] | None = None
    _at: dict[tuple[Any, ...], LatentMotion] = field(default_factory=dict, repr=False)

    def __call__(self, args: Mapping[str, Any]) -> Tensor:
        """D for this step, [B, c, h, w]. args: ComfyUI's arguments of the hook. Raises BadInput."""
        x0: Tensor = args["denoised"]
        sigma, after = _sigmas(args)
        sampling = args["model"].model_sampling
        start, end = (float(sampling.percent_to_sigma(share)) for share in self.window)
        if not self.weight or not end <= sigma <= start:
            return x0
        if x0.ndim != 4:
            raise BadInput(f"expected latents of pictures [frames, c, h, w], got {list(x0.shape)}: no video model")
        step, eta = args["model_options"]["transformer_options"].get(TOLD, ("euler", 1.0))
        if self.kappa == "1":
            step = "renoise"
        return x0 + gain(step, sigma, after, self.is_flow(sampling), eta) * self._difference(x0, args["model"])

    def _difference(self, x0: Tensor, model: Any) -> Tensor:
        """x0' - x0; exactly 0 where nothing is trusted."""
        motion = self._motion(x0)
        pull = pull_latents(motion) if self.pictures is None else pull_pictures(motion, *self.pictures(model))
        weights = self.weight * motion.trust
        changes: list[Tensor] = []

        def fuse(i: int, pulled: Tensor | None) -> Tensor:
            own = x0[i : i + 1]
            changes.append(torch.zeros_like(own) if pulled is None else weights[i : i + 1] * (pulled - own))
            return own + changes[-1]

        chained(x0, fuse, pull, self.reference)
        return torch.cat(changes).to(x0.dtype)

    def _motion(self, x0: Tensor) -> LatentMotion:
        key = len(x0), *x0.shape[-2:], x0.device
        if key not in self._at:
            self._at[key] = at_latents(self.motion, len(x0), (x0.shape[-2], x0.shape[-1]), self.reference).to(x0.device)
        return self._at[key]


def _sigmas(args: Mapping[str, Any]) -> tuple[float, float]:
    """Sigma of this call, and sigma at the end of its step."""
    sigma = args["sigma"].reshape(-1)[0]
    sigmas = args["model_options"]["transformer_options"]["sample_sigmas"]
    place = int((sigmas - sigma).abs().argmin())
    return float(sigma), float(sigmas[place + 1]) if place + 1 < len(sigmas) else 0.0
