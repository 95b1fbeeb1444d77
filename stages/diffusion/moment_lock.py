"""The exit lock of `formulas/moment_lock.py` with what it remembers, and the settings of both locks."""

import torch
from pydantic import Field
from torch import Tensor

from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.settings import StageSettings
from warpfuse.stages.solvers.pair import CLEAN, fuse


class MomentLockSettings(StageSettings):
    """How the fed-back latent is tied down.

    entry     lock the reference's colours and contrast to the source's at the entry
    exit      0..1: how much of the contrast lost in fusing is given back at the exit
    rate      share of a new frame in the running mean; 1 follows every frame
    coverage  below this mean trust the gain starts anew from the frame: a cut, or most of what it knew is gone
    drift     so does a channel whose contrast ratio is further from the mean than this factor less 1
    """

    entry: bool = True
    exit: float = Field(1.0, ge=0, le=1)
    rate: float = Field(0.2, gt=0, le=1)
    coverage: float = Field(0.2, ge=0, le=1)
    drift: float = Field(0.5, gt=0)


class MomentLock:
    """Exit fusion with the exit lock: one gain a channel, remembered from frame to frame. It waits for no device."""

    def __init__(self, settings: MomentLockSettings, device: str | torch.device = "cpu") -> None:
        self._ops = arithmetic(device)
        self._settings = settings
        self._gain: Tensor | None = None

    def update(self, settings: MomentLockSettings) -> None:
        """Take new settings; the gain stays."""
        self._settings = settings

    def reset(self) -> None:
        """Forget: the next frame starts anew."""
        self._gain = None

    def fuse(self, x0: Tensor, x0_ref: Tensor, trust: Tensor, weight: float) -> Tensor:
        """x0 fused with the reference by w = weight trust, with the contrast of x0; x0 to the bit where w is 0.

        x0, x0_ref  [1, c, h, w]: this frame's prediction, and the reference
        trust       [1, 1, h, w]
        """
        x, lock = fuse(x0, None, x0_ref, None, trust * weight, 0.0, CLEAN), self._settings
        if lock.exit == 0:
            return x
        numbers = lock.exit, lock.rate, lock.coverage, lock.drift
        x, self._gain = self._ops.lock_to_prediction(x, x0, trust, self._gain, *numbers)
        return x
