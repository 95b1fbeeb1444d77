"""The noises of a stream: fixed noise for every step, fresh noise for every frame, and the noise of references.

The noise from which a picture is sampled is drawn once from the seed and is the same for every frame. Different noise
in every frame would make the style flicker.
"""

from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine.cuda_streams import ToDevice
from warpfuse.stages.diffusion.settings import NoisePolicy
from warpfuse.stages.formulas.fusion import fuse_noises, noise_gain
from warpfuse.stages.solvers.levels import Level
from warpfuse.stages.solvers.solver import Call
from warpfuse.stages.state_tree import Subtree


class Noises(Subtree):
    """Seeded unit noises of a stream, [1, c, h, w] float32 each. They are drawn on the CPU, so that they are the same
    on every device.

    `slot(0)` is added to the source, `slot(k)` at the end of step k. A slot is drawn when it is first used, and kept.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._to_device = ToDevice(device)
        self._slots: list[Tensor] = []
        self._fresh: Mapping[int, Tensor] = {}

    def with_fresh(self, fresh: Mapping[int, Tensor]) -> "Noises":
        """The same noises for one frame. fresh: its fresh noise that is drawn already, by step."""
        return self.made_of({"slots": self._slots, "fresh": fresh})

    def drawn_for(self, seq: int, steps: Sequence[int], shape: torch.Size) -> dict[int, Tensor]:
        """The fresh noise of a frame for some steps."""
        return {step: self.fresh(seq, step, shape) for step in steps}

    def parts(self) -> Mapping[str, Any]:
        """See `Subtree`."""
        return {"slots": self._slots, "fresh": self._fresh}

    def rest(self) -> Hashable:
        """See `Subtree`. The seed is that of the run."""
        return ()

    def made_of(self, parts: Mapping[str, Any]) -> "Noises":
        """See `Subtree`."""
        made = copy(self)
        made._slots, made._fresh = parts["slots"], parts["fresh"]
        return made

    def close(self) -> None:
        """Give the pinned memory back."""
        self._to_device.close()

    def slot(self, step: int, shape: torch.Size) -> Tensor:
        """The fixed noise of a step."""
        if self._slots and self._slots[0].shape != shape:
            self._slots.clear()  # the list is that of every frame under way
        while len(self._slots) <= step:
            self._slots.append(self._drawn(self._seed + len(self._slots), shape))
        return self._slots[step]

    def fresh(self, seq: int, step: int, shape: torch.Size) -> Tensor:
        """Noise of one frame and step, different from all others and from the slots, and the same in every run."""
        if step in self._fresh:
            return self._fresh[step]
        return self._drawn((self._seed * 0x9E3779B97F4A7C15 + (seq + 1) * 64 + step) % 2**63, shape)

    def _drawn(self, seed: int, shape: torch.Size) -> Tensor:
        return self._to_device(torch.randn(shape, generator=torch.Generator().manual_seed(seed % 2**63)))


def at_entry(policy: NoisePolicy, noises: Noises, seq: int, shape: torch.Size) -> tuple[Tensor, float]:
    """(n_ref, rho) for the reference at the entry, where the noise of the frame is slot 0."""
    if policy == "fresh":
        return noises.fresh(seq, 0, shape), 0.0
    return noises.slot(0, shape), 1.0


def after_call(
    policy: NoisePolicy, noises: Noises, seq: int, step: int, call: Call, n: Tensor
) -> tuple[Tensor | None, float]:
    """(n_ref, rho) for a reference fused in after `call`, whose n' is n. n_ref is None at a level without noise."""
    if call.level_next.sigma == 0:
        return None, 0.0
    match policy:
        case "model":
            return n, 1.0
        case "slot":
            return noises.slot(step, n.shape), call.rho
        case "fresh":
            return noises.fresh(seq, step, n.shape), 0.0


class FusedNoise:
    """The noise n' of a call while references are fused in, one after the other.

    n  unit noise; unused if the call ends at a level without noise
    """

    def __init__(self, call: Call, n: Tensor) -> None:
        self.n = n
        self._call = call
        self._rho: dict[NoisePolicy, Tensor | float] = {"slot": call.rho, "fresh": 0.0}  # of n with each, so far

    def take(
        self, policy: NoisePolicy, noises: Noises, seq: int, step: int, weight: Tensor, inner_strength: float
    ) -> None:
        """Fuse the noise of a policy into n by a weight, with n kept at unit variance."""
        n_ref, _ = after_call(policy, noises, seq, step, self._call, self.n)
        if n_ref is None or n_ref is self.n:  # w n + (1 - w) n
            return
        gain = noise_gain(weight, self._rho[policy], inner_strength)
        self.n = fuse_noises(self.n, n_ref, weight, gain)
        self._rho = {each: gain * rho + (weight if each == policy else 0.0) for each, rho in self._rho.items()}


def in_window(window: tuple[float, float], level: Level) -> bool:
    """The level's timestep is within [low, high]."""
    return window[0] <= level.timestep <= window[1]
