"""Sampling: from the clean latent of the source frame to the predicted x0 of the styled one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine
from warpfuse.stages.frame import Frame
from warpfuse.stages.fuse import FuseSettings, fusion_weight
from warpfuse.stages.levels import LevelTable, karras_levels, steps_for
from warpfuse.stages.sampling import Level, compose, fuse
from warpfuse.stages.solvers import Solver
from warpfuse.stages.solvers.network import network_input, split
from warpfuse.stages.solvers.solver import Memory


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a bundle fixes about sampling.

    prediction             what the UNet's output is: "epsilon" | "v" | "sample" | "flow"
    solver                 how a predicted pair is taken to the next level
    level_of               timestep -> level, in the solver's space
    top, floor             timesteps between which the steps lie (`levels.steps_for`)
    takes_source           the UNet also takes the clean latent of the source frame
    strength_scales_style  strength multiplies the style vector; else it lowers the first level
    karras                 the table whose `levels.karras_levels` are used in the place of even steps
    """

    prediction: str
    solver: Solver
    level_of: Callable[[float], Level]
    top: float
    floor: float
    takes_source: bool
    strength_scales_style: bool
    karras: LevelTable | None = None

    def levels(self, strength: float, steps: int) -> tuple[Level, ...]:
        """The levels the steps start from, noisiest first."""
        reach = 1.0 if self.strength_scales_style else strength
        if self.karras is not None:
            top = self.floor + (self.top - self.floor) * reach
            return karras_levels(self.karras, steps, top, self.floor)
        return steps_for(self.level_of, reach, steps, self.top, self.floor)


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """What may change between frames.

    style     vector of the prompt
    strength  0..1
    steps     of the sampler, 1..4
    fuse      fusion at entry and between steps
    """

    style: tuple[float, ...]
    strength: float
    steps: int
    fuse: FuseSettings


class Predict:
    """Every step of the sampler for one frame, with fusion in front and, if asked for, between the steps.

    inputs  source     "latent" z [1, c, h, w] of the source frame
            reference  "latent": the warped last picture, encoded, "trust" [1, 1, h, w]; or nothing. The input itself
                       may be left out where frames are styled on their own
    gives   "latent"   predicted x0 after the last step

    The noise is drawn once from the seed, one tensor for each step, and is the same for every frame: a style that
    boils is boiling noise first of all.

        entry      x_0 = alpha_0 [w z_ref + (1 - w) z] + sigma_0 z_0
        a step     (x0, n) = split(x, UNet(x));    (x0', n') = solver(x0, n, z_{k+1})
        between    x = alpha' [w z_ref + (1 - w) x0'] + sigma' n'

    The reference takes the noise that is there (n_ref = n', so rho is 1 and the level stays exact).
    Owns the engine and closes it.
    """

    inputs = ("source", "reference")

    def __init__(self, unet: Engine, sampling: Sampling, settings: PredictSettings, seed: int, device: str) -> None:
        self._unet = unet
        self._sampling = sampling
        self._seed = seed
        self._device = torch.device(device)
        self._noise: list[Tensor] = []
        self.update(settings)

    def __call__(self, source: Frame, reference: Frame | None = None) -> Frame:
        """Run every network call of the plan."""
        z = source["latent"]
        noise = self._noise_for(z)
        x = self._fused(z, noise[0], self._start, reference, self._settings.fuse.entry)
        memory: Memory = ()
        step = 0
        for k, call in enumerate(self._plan):
            output = self._unet(self._feed(network_input(x, call.level), z, k))["output"]
            x0, n = split(x, output, call.level, self._sampling.prediction)
            step += call.finished
            x0, n, memory = call.advance(x, x0, n, noise[step] if call.needs_noise else None, memory)
            between = call.finished and call.level_next.sigma > 0 and self._settings.fuse.between
            x = self._fused(x0, n, call.level_next, reference, between)
        return Frame(source.stamp, {"latent": x.clone()})  # what the engine lent may be in it

    def update(self, settings: PredictSettings) -> None:
        """Take style, strength, steps and fusion."""
        scale = settings.strength if self._sampling.strength_scales_style else 1.0
        levels = self._sampling.levels(settings.strength, settings.steps)
        self._settings = settings
        self._start = levels[0]
        self._plan = self._sampling.solver.plan(levels)
        self._style = torch.tensor([settings.style], device=self._device) * scale
        self._told = [torch.tensor([[c.seen.alpha, c.seen.sigma]], device=self._device) for c in self._plan]

    def close(self) -> None:
        """Close the UNet."""
        self._unet.close()

    def _fused(self, x0: Tensor, n: Tensor, level: Level, reference: Frame | None, wanted: bool) -> Tensor:
        """The latent at a level, with the reference fused in if that is wanted and there is one."""
        if not wanted or reference is None or "latent" not in reference.tensors:
            return compose(x0, n, level)
        w = fusion_weight(self._settings.fuse, reference["trust"])
        return fuse(x0, n, reference["latent"], n, w, 1.0, level)

    def _feed(self, x: Tensor, z: Tensor, k: int) -> Mapping[str, Tensor]:
        feed = {"x": x, "level": self._told[k], "style": self._style}
        return {**feed, "source": z} if self._sampling.takes_source else feed

    def _noise_for(self, z: Tensor) -> list[Tensor]:
        """One tensor a step; drawn on the CPU so that every device and number of steps sees the same."""
        if not self._noise or self._noise[0].shape != z.shape:
            self._noise = []
        while len(self._noise) < self._settings.steps:
            generator = torch.Generator().manual_seed(self._seed + len(self._noise))
            self._noise.append(torch.randn(z.shape, generator=generator).to(self._device))
        return self._noise
