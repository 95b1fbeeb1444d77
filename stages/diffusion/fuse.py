"""Fusion of what the network believes now with what was shown before, where the flow may be trusted."""

from typing import Any

from torch import Tensor

from warpfuse.stages.diffusion.moment_lock import MomentLock
from warpfuse.stages.diffusion.settings import FuseSettings
from warpfuse.stages.frame import Frame, Latent
from warpfuse.stages.stage import Opening, Stage

W_MAX = 0.95
"""Largest weight in use: at 1 an error, once in the picture, would never leave it."""


def largest_weight(settings: FuseSettings) -> float:
    """min(weight, W_MAX): the weight where everything is trusted."""
    return min(settings.weight, W_MAX)


def fusion_weight(settings: FuseSettings, trust: Tensor) -> Tensor:
    """w = min(weight, W_MAX) * trust, [1, 1, h, w] in [0, W_MAX]."""
    return trust * largest_weight(settings)


def warped(reference: Frame | None) -> tuple[Tensor, Tensor] | None:
    """z and trust of a reference that was pulled onto the frame; None where there is none to fuse."""
    if not isinstance(reference, Latent) or reference.trust is None:
        return None
    return reference.z, reference.trust


def settings_of(config: Any, prompts: object) -> FuseSettings:
    """Those of a configuration."""
    return config.stages.fuse  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return Fuse(opening.config.stages.fuse, opening.device)


class Fuse(Stage):
    """Exit fusion: the predicted x0 with the warped, encoded last picture.

    inputs  prediction  predicted x0 [1, c, h, w]
            reference   the encoded warped picture and its trust; or nothing, then x0 passes
    gives   w x0_ref + (1 - w) x0, theory of the last step: no noise is left to rescale. A held frame has none of its
            own: the reference's, if there is one

    What is fused is given the contrast of the prediction (`MomentLock`).
    """

    def __init__(self, settings: FuseSettings, device: str = "cpu") -> None:
        self._settings = settings
        self._lock = MomentLock(settings.anchor, device)

    def __call__(self, prediction: Latent, reference: Frame) -> Latent:
        """Blend where trusted; bit for bit the prediction where the weight is 0."""
        settings, past = self._settings, warped(reference)
        if past is None or not settings.exit or not settings.weight:
            self._lock.reset()
            return prediction
        weight = largest_weight(settings) * settings.exit
        return Latent(prediction.stamp, self._lock.fuse(prediction.z, *past, weight))

    def held(self, prediction: Frame, reference: Frame) -> Frame:
        """The latent of the reference."""
        return Latent(prediction.stamp, reference.z) if isinstance(reference, Latent) else Frame(prediction.stamp)

    def update(self, settings: FuseSettings) -> None:
        """Take new weights."""
        self._settings = settings
        self._lock.update(settings.anchor)
