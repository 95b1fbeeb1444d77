"""Exit fusion: the predicted x0 is blended with the encoded, warped last picture where the flow is trusted."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine.cuda_streams import ToDevice
from warpfuse.stages.diffusion.moment_lock import MomentLock
from warpfuse.stages.diffusion.settings import FuseSettings
from warpfuse.stages.frame import Frame, Latent, Stamp
from warpfuse.stages.stage import Capturable, Opening, Stage


def fusion_weight(settings: FuseSettings, trust: Tensor) -> Tensor:
    """w = min(weight, W_MAX) * trust, [1, 1, h, w] in [0, W_MAX]."""
    return trust * settings.largest_weight


def warped(reference: Frame | None) -> tuple[Tensor, Tensor] | None:
    """Latent z [1, c, h, w] and trust [1, 1, h, w] of a warped reference; None if there is nothing to fuse."""
    if not isinstance(reference, Latent) or reference.trust is None:
        return None
    return reference.z, reference.trust


def settings_of(config: Any, prompts: object) -> FuseSettings:
    """The settings of this stage in a configuration."""
    return config.stages.fuse  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return Fuse(opening.config.stages.fuse, opening.device)


class Fuse(Stage, Capturable):
    """Exit fusion: the predicted x0 with the warped, encoded last picture.

    inputs  prediction  predicted x0 [1, c, h, w]
            reference   the encoded, warped last picture and its trust; a bare `Frame`: x0 passes unchanged
    gives   w x0_ref + (1 - w) x0. This is the last step, so no noise is left to rescale. A held frame has no
            prediction and gives the reference, if there is one

    The result gets the contrast of the prediction (`MomentLock`).
    """

    def __init__(self, settings: FuseSettings, device: str = "cpu") -> None:
        self._lock = MomentLock(settings.anchor, device)
        self._to_device = ToDevice(device)
        self.update(settings)

    def __call__(self, prediction: Latent, reference: Frame) -> Latent:
        """The fused latent. Where the weight is 0 it equals the prediction bit for bit."""
        past = warped(reference)
        if past is None or not self._fuses:
            self._lock.reset()
            return prediction
        return Latent(prediction.stamp, self._lock.fuse(prediction.z, *past, self._weight))

    def held(self, prediction: Frame, reference: Frame) -> Frame:
        """The latent of the reference."""
        return Latent(prediction.stamp, reference.z) if isinstance(reference, Latent) else Frame(prediction.stamp)

    def update(self, settings: FuseSettings) -> None:
        """Use new settings from the next frame on."""
        self._fuses = bool(settings.exit and settings.weight)
        self._weight = self._to_device(torch.tensor(settings.largest_weight * settings.exit))
        self._lock.update(settings.anchor)

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable:
        """See `Capturable`."""
        return self._fuses, self._lock.settings

    @property
    def state(self) -> tuple[Tensor, Tensor | None]:
        """The weight, and the gain of the lock."""
        return self._weight, self._lock.gain

    @state.setter
    def state(self, state: tuple[Tensor, Tensor | None]) -> None:
        self._weight, self._lock.gain = state

    def close(self) -> None:
        """Give the pinned memory back."""
        self._to_device.close()
