"""What a bundle and the settings of a frame come to: the network calls to make for it, and what the network is told."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from warpfuse.engine.bundle_parts import ADAPTER_SCALE, CONTROL_SCALE, Control
from warpfuse.stages.controls.settings import ControlSettings
from warpfuse.stages.diffusion.prompts import Conditioning
from warpfuse.stages.diffusion.settings import AttentionSettings, FuseSettings, FusionWindow, Guidance
from warpfuse.stages.diffusion.spacing import Spacing
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.solvers import Call, Solver, SolverError
from warpfuse.stages.solvers.levels import LevelTable, karras_levels, steps_for
from warpfuse.stages.solvers.pair import CLEAN, Level


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a bundle fixes about sampling.

    prediction             what the UNet's output is: "epsilon" | "v" | "sample" | "flow"
    solver                 how a predicted pair is taken to the next level
    level_of               timestep -> level, in the solver's space
    top, floor             timesteps between which the steps lie (`levels.steps_for`) where there is no spacing
    strength_scales_style  strength multiplies the style vector; else it lowers the first level
    karras                 the table whose `levels.karras_levels` are used between the ends of the steps
    spacing                the steps of the checkpoint's own sampler
    end                    the level of what the last call leaves: clean, or the lowest of the table
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
        """The levels the steps start from, noisiest first."""
        reach = 1.0 if self.strength_scales_style else strength
        if self.spacing is not None:
            return self._spaced(self.spacing, steps, reach)
        if self.karras is not None:
            top = self.floor + (self.top - self.floor) * reach
            return karras_levels(self.karras, steps, top, self.floor)
        return steps_for(self.level_of, reach, steps, self.top, self.floor)

    def plan(self, strength: float, steps: int) -> tuple[Call, ...]:
        """Every network call of a frame; as many at every strength. Raises SolverError."""
        try:
            found = self.levels(strength, steps)
        except ValueError as error:
            raise SolverError(f"steps {steps}, strength {strength:g}: {error}") from None
        return self.solver.plan(found, self.end)

    def calls(self, steps: int) -> int:
        """Network calls of a frame."""
        return len(self.plan(1.0, steps))

    def _spaced(self, spacing: Spacing, steps: int, strength: float) -> tuple[Level, ...]:
        if self.karras is not None:
            top, bottom = spacing.ends(steps, strength)
            return karras_levels(self.karras, steps, top, bottom, of=spacing.own_steps(steps, strength))
        timesteps = spacing.timesteps(steps, strength)
        # The samplers that stay at the table's own levels round; those in sigma space read between them.
        return tuple(self.level_of(round(t) if self.solver.space == "vp" else t) for t in timesteps)


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """What may change between frames.

    conditioning  of the prompt
    strength      0..1
    steps         of the sampler
    fuse          fusion at entry and between steps
    guidance      how strongly the prompt pulls
    warp          how x0 of the frame before is pulled and trusted between steps
    attention     how much the tokens of earlier frames count
    controls      how strongly each control is taken, by name; 0 for one that is left out
    """

    conditioning: Conditioning
    strength: float
    steps: int
    fuse: FuseSettings
    guidance: Guidance = field(default_factory=Guidance)
    warp: WarpSettings = field(default_factory=WarpSettings)
    attention: AttentionSettings = field(default_factory=AttentionSettings)
    controls: Mapping[str, ControlSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FrameSchedule:
    """The settings of a frame, worked out once for all frames that have them; immutable, tensors read-only.

    plan           every network call of a frame, in order
    start          the level the source is made noisy at
    told           for each call, what a network may take of its level: "level" [1, 2], alpha and sigma; "timestep" [1];
                   "control_scale" [1, n] and "adapter_scale" [1, m] of its controls there
    conditioning   name -> tensor [1, ...] the network takes beside the latent
    unconditional  the same for guidance that asks it a second time
    windows        what is fused in between steps
    """

    plan: tuple[Call, ...]
    start: Level
    fuse: FuseSettings
    guidance: Guidance
    warp: WarpSettings
    attention: AttentionSettings
    told: tuple[Mapping[str, Tensor], ...] = field(repr=False)
    conditioning: Mapping[str, Tensor] = field(repr=False)
    unconditional: Mapping[str, Tensor] = field(repr=False)
    windows: tuple[FusionWindow, ...] = ()

    @property
    def pulls_before(self) -> bool:
        """Whether x0 of the frame before is fused in between steps."""
        return any(one.of == "previous" and one.kind != "reference" for one in self.windows)


def frame_schedule(sampling: Sampling, settings: PredictSettings, device: torch.device) -> FrameSchedule:
    """Work settings out. Raises SolverError or ValueError for levels the solver cannot run on."""
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
    return FrameSchedule(
        plan=plan,
        start=start,
        fuse=settings.fuse,
        guidance=settings.guidance,
        warp=settings.warp,
        attention=settings.attention,
        told=tuple(_told(call.seen, sampling.controls, settings.controls, device) for call in plan),
        conditioning=given if scale == 1 else {name: tensor * scale for name, tensor in given.items()},
        unconditional=settings.conditioning.unconditional,
        windows=settings.fuse.windows,
    )


def _told(
    level: Level, known: Sequence[Control], asked: Mapping[str, ControlSettings], device: torch.device
) -> Mapping[str, Tensor]:
    told = {
        "level": torch.tensor([[level.alpha, level.sigma]], device=device),
        "timestep": torch.tensor([level.timestep], device=device),
    }
    forms: tuple[tuple[str, str], ...] = (("controlnet", CONTROL_SCALE), ("adapter", ADAPTER_SCALE))
    for form, name in forms:
        scales = [
            asked[control.name].scale_at(level.timestep) if control.name in asked else 0.0
            for control in known
            if control.form == form
        ]
        if scales:
            told[name] = torch.tensor([scales], device=device)
    return told
