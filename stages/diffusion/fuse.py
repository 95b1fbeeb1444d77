"""Fusion of what the network believes now with what was shown before, where the flow may be trusted."""

from typing import Any

from torch import Tensor

from warpfuse.stages.diffusion.moment_lock import MomentLock
from warpfuse.stages.diffusion.settings import FuseSettings
from warpfuse.stages.frame import Frame
from warpfuse.stages.stage import Opening, Stage

W_MAX = 0.95
"""Largest weight in use: at 1 an error, once in the picture, would never leave it."""


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
