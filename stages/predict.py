"""Sampling: from the clean latent of the source frame to the predicted x0 of the styled one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine
from warpfuse.stages.frame import Frame
from warpfuse.stages.fuse import FuseSettings, fusion_weight
from warpfuse.stages.levels import steps_for
from warpfuse.stages.sampling import Level, clean_and_noise, compose, fuse


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a bundle fixes about sampling.

    prediction             what the UNet's output is: "epsilon" | "v" | "sample" | "flow"
    level_of               timestep -> level of the schedule it was trained on
    top, floor             timesteps between which the steps lie (`levels.steps_for`)
    takes_source           the UNet also takes the clean latent of the source frame
    strength_scales_style  strength multiplies the style vector; else it lowers the first level
    """

    prediction: str
    level_of: Callable[[float], Level]
    top: float
    floor: float
    takes_source: bool
    strength_scales_style: bool

    def levels(self, strength: float, steps: int) -> tuple[Level, ...]:
        """The levels the UNet is run at, noisiest first."""
        reach = 1.0 if self.strength_scales_style else strength
        return steps_for(self.level_of, reach, steps, self.top, self.floor)


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """What may change between frames.

    style     vector of the prompt
    strength  0..1
    steps     UNet runs a frame, 1..4
    fuse      entry fusion
    """

    style: tuple[float, ...]
    strength: float
    steps: int
    fuse: FuseSettings


class Predict:
    """Every step of the sampler for one frame, with entry fusion in front.

    inputs  source     "latent" z [1, c, h, w] of the source frame
            reference  "latent": the warped last picture, encoded, "trust" [1, 1, h, w]; or nothing. The input itself
                       may be left out where frames are styled on their own
    gives   "latent"   predicted x0 after the last step

    The noise is drawn once from the seed, one tensor for each step, and is the same for every frame: a style that
    boils is boiling noise first of all. Re-noising with it is what a consistency model does, with the slot's noise:

        x_0     = alpha_0 [w z_ref + (1 - w) z] + sigma_0 n_0
        x_{k+1} = alpha_{k+1} x0(x_k) + sigma_{k+1} n_{k+1}

    Owns the engine and closes it.
    """

    inputs = ("source", "reference")

    def __init__(
        self,
        unet: Engine,
        sampling: Sampling,
        settings: PredictSettings,
        seed: int,
        device: str,
    ) -> None:
        self._unet = unet
        self._sampling = sampling
        self._seed = seed
        self._device = torch.device(device)
        self._noise: list[Tensor] = []
        self.update(settings)

    def __call__(self, source: Frame, reference: Frame | None = None) -> Frame:
        """Run the UNet once a step."""
        z = source["latent"]
        noise = self._noise_for(z)
        x = self._entry(z, noise[0], reference)
        for k, level in enumerate(self._levels):
            output = self._unet(self._feed(x, z, k))["output"]
            x0, _ = clean_and_noise(x, output, level, self._sampling.prediction)
            if k + 1 < len(self._levels):
                x = compose(x0, noise[k + 1], self._levels[k + 1])
        return Frame(source.stamp, {"latent": x0.clone()})  # for "sample" x0 is the engine's own output

    def update(self, settings: PredictSettings) -> None:
        """Take style, strength, steps and entry fusion."""
        scale = settings.strength if self._sampling.strength_scales_style else 1.0
        self._settings = settings
        self._levels = self._sampling.levels(settings.strength, settings.steps)
        self._style = torch.tensor([settings.style], device=self._device) * scale
        self._told = [torch.tensor([[level.alpha, level.sigma]], device=self._device) for level in self._levels]

    def close(self) -> None:
        """Close the UNet."""
        self._unet.close()

    def _entry(self, z: Tensor, noise: Tensor, reference: Frame | None) -> Tensor:
        first = self._levels[0]
        if reference is None or "latent" not in reference.tensors or not self._settings.fuse.entry:
            return compose(z, noise, first)
        w = fusion_weight(self._settings.fuse, reference["trust"])
        return fuse(z, noise, reference["latent"], noise, w, 1.0, first)  # one noise tensor: rho is 1

    def _feed(self, x: Tensor, z: Tensor, k: int) -> Mapping[str, Tensor]:
        feed = {"x": x, "level": self._told[k], "style": self._style}
        return {**feed, "source": z} if self._sampling.takes_source else feed

    def _noise_for(self, z: Tensor) -> list[Tensor]:
        """One tensor a step; drawn on the CPU so that every device and number of steps sees the same."""
        if not self._noise or self._noise[0].shape != z.shape:
            self._noise = []
        while len(self._noise) < len(self._levels):
            generator = torch.Generator().manual_seed(self._seed + len(self._noise))
            self._noise.append(torch.randn(z.shape, generator=generator).to(self._device))
        return self._noise
