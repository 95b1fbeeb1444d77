"""The exit lock of `formulas/moment_lock.py`, with its state."""

import torch
from torch import Tensor

from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.diffusion.settings import MomentLockSettings
from warpfuse.stages.solvers.levels import CLEAN
from warpfuse.stages.solvers.pair import fuse


class MomentLock:
    """Exit fusion with the exit lock. The host never waits for the device.

    gain  of each channel, [1, c, 1, 1], kept from frame to frame; None: the next frame starts anew
    """

    def __init__(self, settings: MomentLockSettings, device: str | torch.device = "cpu") -> None:
        self._ops = arithmetic(device)
        self.settings = settings
        self.gain: Tensor | None = None

    def update(self, settings: MomentLockSettings) -> None:
        """Use new settings. The gain is kept."""
        self.settings = settings

    def reset(self) -> None:
        """Forget the gain."""
        self.gain = None

    def fuse(self, x0: Tensor, x0_ref: Tensor, trust: Tensor, weight: Tensor) -> Tensor:
        """x0 fused with the reference by w = weight trust, with the contrast of x0. Where w is 0 it is x0 bit for bit.

        x0, x0_ref  [1, c, h, w]: this frame's prediction, and the reference
        trust       [1, 1, h, w]
        weight      one number on the device
        """
        lock = self.settings
        if lock.exit == 0:
            return fuse(x0, None, x0_ref, None, trust * weight, 0.0, CLEAN)
        numbers = lock.exit, lock.rate, lock.coverage, lock.drift
        x, self.gain = self._ops.fuse_at_exit(x0, x0_ref, trust, weight, self.gain, *numbers)
        return x
