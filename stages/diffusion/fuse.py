"""Fusion of what the network believes now with what was shown before, where the flow may be trusted."""

from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor

from warpfuse.stages.diffusion.moment_lock import MomentLock, MomentLockSettings
from warpfuse.stages.diffusion.noise import NoisePolicy
from warpfuse.stages.frame import Frame
from warpfuse.stages.settings import StageSettings
from warpfuse.stages.stage import Opening, Stage

W_MAX = 0.95
"""Largest weight in use: at 1 an error, once in the picture, would never leave it."""


class FuseSettings(StageSettings):
    """Where and how strongly the past is fused in.

    weight          0..1: share of the warped past where the flow is trusted, held at `W_MAX`; 0: each frame on its own
    reference       picture  the last styled picture, warped and encoded again
                    latent   its x0, warped as a latent: no encoder and no wait for the decoder; but a cell of 8 x 8
                             pixels is not shift-equivariant, so it goes soft
                    output   the picture again at entry, and at the exit blended over the decoded picture, not into x0
    entry           0..1: share of the weight in the latent the UNet starts from; keeps strokes sharp. 0: none
    between         fusion between two steps, into the latent that goes on
                    off
                    reference  the picture that was fused in at the entry
                    latent     x0 of the frame before after the same step, warped as a latent
                    picture    the same, decoded, warped and encoded: a decoder and an encoder run for every such step
    exit            0..1: share of the weight in what is shown; keeps strokes still. 0: none
    lines           0..1: share of the weight in the cover of the lines, where the bundle draws them. 0: none
    window          timesteps low, high: levels the network is asked at where entry and between may fuse
    noise           model, slot or fresh: the noise a reference comes with (`stages/diffusion/noise.py`)
    anchor          what keeps a picture that is fed back from drifting (`formulas/moment_lock.py`)
    inner_strength  0..1: below 1 the rescaled noise is softened as in Rerender-A-Video (0.9 there)
    """

    weight: float = Field(0.8, ge=0, le=1)
    reference: Literal["picture", "latent", "output"] = "picture"
    entry: float = Field(1.0, ge=0, le=1)
    between: Literal["off", "reference", "latent", "picture"] = "off"
    exit: float = Field(1.0, ge=0, le=1)
    lines: float = Field(0.85, ge=0, le=1)
    window: tuple[float, float] = (0.0, 1000.0)
    noise: NoisePolicy = "model"
    anchor: MomentLockSettings = MomentLockSettings()
    inner_strength: float = Field(1.0, ge=0, le=1)

    @field_validator("window")
    @classmethod
    def _ascending(cls, window: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= window[0] <= window[1]:
            raise ValueError(f"expected two timesteps, the lower first, as in [0, 1000]; got {list(window)}")
        return window


def largest_weight(settings: FuseSettings) -> float:
    """min(weight, W_MAX): the weight where everything is trusted."""
    return min(settings.weight, W_MAX)


def fusion_weight(settings: FuseSettings, trust: Tensor) -> Tensor:
    """w = min(weight, W_MAX) * trust, [1, 1, h, w] in [0, W_MAX]."""
    return trust * largest_weight(settings)


def settings_of(config: Any, prompts: object) -> FuseSettings:
    """Those of a configuration."""
    return config.stages.fuse  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return Fuse(opening.config.stages.fuse, opening.device)


class Fuse(Stage):
    """Exit fusion: the predicted x0 with the warped, encoded last picture.

    inputs  prediction  "latent": predicted x0 [1, c, h, w]
            reference   "latent": encoded warped picture, "trust" [1, 1, h, w]; or nothing, then x0 passes
    gives   "latent"    w x0_ref + (1 - w) x0, theory of the last step: no noise is left to rescale. A held frame has
                        none of its own: the reference's, if there is one

    What is fused is given the contrast of the prediction (`MomentLock`).
    """

    def __init__(self, settings: FuseSettings, device: str = "cpu") -> None:
        self._settings = settings
        self._lock = MomentLock(settings.anchor, device)

    def __call__(self, prediction: Frame, reference: Frame) -> Frame:
        """Blend where trusted; bit for bit the prediction where the weight is 0."""
        settings, stamp = self._settings, prediction.stamp
        x0 = prediction["latent"]
        if "latent" not in reference.tensors or not settings.exit or not settings.weight:
            self._lock.reset()
            return Frame(stamp, {"latent": x0})
        weight = largest_weight(settings) * settings.exit
        return Frame(stamp, {"latent": self._lock.fuse(x0, reference["latent"], reference["trust"], weight)})

    def held(self, prediction: Frame, reference: Frame) -> Frame:
        """The latent of the reference."""
        return Frame(prediction.stamp, {name: x for name, x in reference.tensors.items() if name == "latent"})

    def update(self, settings: FuseSettings) -> None:
        """Take new weights."""
        self._settings = settings
        self._lock.update(settings.anchor)
