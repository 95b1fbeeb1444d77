"""The schedule of a frame: its network calls and their inputs, from the bundle and the settings of the frame."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine.bundle_parts import ADAPTER_SCALE, CONTROL_SCALE, Control
from warpfuse.stages.controls.settings import ControlSettings
from warpfuse.stages.diffusion.noise import in_window
from warpfuse.stages.diffusion.prompts import Conditioning
from warpfuse.stages.diffusion.settings import AttentionSettings, FuseSettings, FusionWindow, Guidance
from warpfuse.stages.diffusion.spacing import Spacing
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.solvers.levels import CLEAN, Level, LevelTable, karras_levels, steps_for
from warpfuse.stages.solvers.solver import Call, Solver, SolverError
from warpfuse.stages.state_tree import Subtree


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling of a bundle.

    prediction             the UNet's output: "epsilon" | "v" | "sample" | "flow"
    solver                 takes a predicted pair to the next level
    level_of               timestep -> level, in the solver's space
    top, floor             without spacing: highest and lowest timestep of the steps (`levels.steps_for`)
    strength_scales_style  strength multiplies the style vector; else it lowers the first level
    karras                 table for `levels.karras_levels` between the first and last step; None: they are not used
    spacing                timesteps of the checkpoint's own sampler; None: even
    end                    level after the last call: clean, or the lowest of the table
    controls               ControlNets and T2I-Adapters that the network takes
    """

    prediction: str
    solver: Solver
    level_of: Callable[[float], Level]
    top: float
    floor: float
    strength_scales_style: bool
    karras: LevelTable | None = None
    spacing: Spacing | None = None
    end: Level = CLEAN
    controls: tuple[Control, ...] = ()

    def levels(self, strength: float, steps: int) -> tuple[Level, ...]:
        """The level at the start of each step, noisiest first. Raises ValueError."""
        reach = 1.0 if self.strength_scales_style else strength
        if self.spacing is not None:
            return self._spaced(self.spacing, steps, reach)
        if self.karras is not None:
            top = self.floor + (self.top - self.floor) * reach
            return karras_levels(self.karras, steps, top, self.floor)
        return steps_for(self.level_of, reach, steps, self.top, self.floor)

    def plan(self, strength: float, steps: int) -> tuple[Call, ...]:
        """All network calls of a frame. Their number does not depend on the strength. Raises SolverError."""
        try:
            found = self.levels(strength, steps)
        except ValueError as error:
            raise SolverError(f"steps {steps}, strength {strength:g}: {error}") from None
        return self.solver.plan(found, self.end)

    def calls(self, steps: int) -> int:
        """The number of network calls of a frame."""
        return len(self.plan(1.0, steps))

    def _spaced(self, spacing: Spacing, steps: int, strength: float) -> tuple[Level, ...]:
        if self.karras is not None:
            top, bottom = spacing.ends(steps, strength)
            return karras_levels(self.karras, steps, top, bottom, of=spacing.own_steps(steps, strength))
        timesteps = spacing.timesteps(steps, strength)
        # Samplers in "vp" space use whole timesteps of the table; those in sigma space interpolate.
        return tuple(self.level_of(round(t) if self.solver.space == "vp" else t) for t in timesteps)


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """Settings of `predict` that may change between frames.

    conditioning  conditioning of the prompt
    strength      0..1
    steps         steps of the sampler
    fuse          fusion at entry and between steps
    guidance      classifier-free guidance
    warp          warping and trust of x0 of the frame before, for fusion between steps
    attention     weights of the tokens of earlier frames
    controls      scales and windows of controls, by name; a missing one has scale 0
    cache_deep    the deep part of the UNet runs for every such frame
    """

    conditioning: Conditioning
    strength: float
    steps: int
    fuse: FuseSettings
    guidance: Guidance = field(default_factory=Guidance)
    warp: WarpSettings = field(default_factory=WarpSettings)
    attention: AttentionSettings = field(default_factory=AttentionSettings)
    controls: Mapping[str, ControlSettings] = field(default_factory=dict)
    cache_deep: int = 1


@dataclass(frozen=True, slots=True)
class FrameSchedule(Subtree):
    """The schedule of frames with the same settings. Immutable, tensors read-only.

    plan           all network calls of a frame, in order
    start          level of the first call
    numbers        float32 [n] on the device, of which `entry` and `told` are parts
    entry          largest weight of the fusion at the entry, a number on the device
    told           by call, inputs that depend on its level: "level" [1, 2], alpha and sigma; "timestep" [1];
                   "control_scale" [1, n] and "adapter_scale" [1, m] of the controls at this level
    conditioning   other inputs, tensors [1, ...] by name
    unconditional  the same for the unconditional pass of guidance
    windows        fusions between steps
    """

    plan: tuple[Call, ...]
    start: Level
    fuse: FuseSettings
    guidance: Guidance
    warp: WarpSettings
    attention: AttentionSettings
    numbers: Tensor = field(repr=False)
    entry: Tensor = field(repr=False)
    told: tuple[Mapping[str, Tensor], ...] = field(repr=False)
    conditioning: Mapping[str, Tensor] = field(repr=False)
    unconditional: Mapping[str, Tensor] = field(repr=False)
    windows: tuple[FusionWindow, ...] = ()

    @property
    def pulls_before(self) -> bool:
        """x0 of the frame before is fused in between steps."""
        return any(one.of == "previous" and one.kind != "reference" for one in self.windows)

    @property
    def fresh_steps(self) -> tuple[int, ...]:
        """The steps for which a frame needs fresh noise; 0 is the entry."""
        steps, step = {0} if self.fuse.entry and self.fuse.noise == "fresh" else set[int](), 0
        for call in self.plan[:-1]:
            step += call.finished
            noises = {one.noise for one in self.windows if call.finished and in_window(one.window, call.level)}
            if "fresh" in noises and call.level_next.sigma > 0:
                steps.add(step)
        return tuple(sorted(steps))

    def parts(self) -> Mapping[str, Any]:
        """See `Subtree`."""
        return {"numbers": self.numbers, "conditioning": self.conditioning, "unconditional": self.unconditional}

    def rest(self) -> Hashable:
        """See `Subtree`. Weight and share of the entry are in `numbers`."""
        fuse = self.fuse
        levels = tuple((one.level, one.level_next, one.needs_noise, one.finished, one.rho) for one in self.plan)
        entry = bool(fuse.entry), fuse.window, fuse.noise, fuse.anchor.entry, fuse.inner_strength
        return levels, entry, fuse.adain, self.windows, self.guidance, self.warp, self.attention

    def made_of(self, parts: Mapping[str, Any]) -> "FrameSchedule":
        """See `Subtree`."""
        entry, told = _parts(parts["numbers"], [{name: x.numel() for name, x in call.items()} for call in self.told])
        return replace(self, entry=entry, told=told, **parts)


def frame_schedule(
    sampling: Sampling, settings: PredictSettings, to_device: Callable[[Tensor], Tensor] = lambda x: x
) -> FrameSchedule:
    """The schedule for these settings. Raises SolverError or ValueError for levels that the solver cannot take.

    to_device  brings numbers to the device of the latents
    """
    plan = sampling.plan(settings.strength, settings.steps)
    start = plan[0].level
    guidance = settings.guidance
    if guidance.mode in ("self", "initialize") and guidance.delta != 1 and start.alpha == 0:
        raise SolverError(
            f"guidance {guidance.mode!r} with delta {guidance.delta:g} needs signal at every level, but this bundle "
            f"starts from pure noise: set stages.predict.guidance_delta to 1"
        )
    scale = settings.strength if sampling.strength_scales_style else 1.0
    given = settings.conditioning.given
    told = [_told(call.seen, sampling.controls, settings.controls) for call in plan]
    entry_weight = settings.fuse.largest_weight * settings.fuse.entry
    numbers = to_device(torch.tensor([entry_weight, *(n for call in told for own in call.values() for n in own)]))
    entry, told_there = _parts(numbers, [{name: len(own) for name, own in call.items()} for call in told])
    return FrameSchedule(
        plan=plan,
        start=start,
        fuse=settings.fuse,
        guidance=settings.guidance,
        warp=settings.warp,
        attention=settings.attention,
        numbers=numbers,
        entry=entry,
        told=told_there,
        conditioning=given if scale == 1 else {name: tensor * scale for name, tensor in given.items()},
        unconditional=settings.conditioning.unconditional,
        windows=settings.fuse.windows,
    )


def _told(
    level: Level, known: Sequence[Control], asked: Mapping[str, ControlSettings]
) -> Mapping[str, Sequence[float]]:
    told: dict[str, Sequence[float]] = {"level": (level.alpha, level.sigma), "timestep": (level.timestep,)}
    forms: tuple[tuple[str, str], ...] = (("controlnet", CONTROL_SCALE), ("adapter", ADAPTER_SCALE))
    for form, name in forms:
        scales = [
            asked[control.name].scale_at(level.timestep) if control.name in asked else 0.0
            for control in known
            if control.form == form
        ]
        if scales:
            told[name] = scales
    return told


def _parts(numbers: Tensor, sizes: Sequence[Mapping[str, int]]) -> tuple[Tensor, tuple[Mapping[str, Tensor], ...]]:
    """`entry` and `told` as parts of `numbers`. sizes: of each call, name -> how many numbers; in their order."""
    told, at = [], 1
    for call in sizes:
        own = {}
        for name, count in call.items():
            part, at = numbers[at : at + count], at + count
            own[name] = part if name == "timestep" else part[None]
        told.append(own)
    return numbers[0], tuple(told)
