"""Motion over several frames: where each pixel was K frames ago, with the confidence of the whole path."""

from collections import deque

from torch import Tensor

from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.borrowed import owned
from warpfuse.stages.formulas.confidence_mask import inside
from warpfuse.stages.frame import Motion
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """Open the stage."""
    return ComposeMotion(opening.calls, opening.device)


class ComposeMotion(Stage):
    """Motion to the frame before -> motion to the frame `frames` before.

        F_1 = f_n,    F_{j+1}(p) = F_j(p) + f_{n-j}(p + F_j(p))
        T_1 = m_n,    T_{j+1}(p) = T_j(p) m_{n-j}(p + F_j(p)),   and 0 where p + F_K(p) has left the picture

    A cut on the way makes the trust 0. The stage keeps the last `frames` - 1 motions, by reference unless they are
    borrowed memory. Until it has that many, and after a discontinuity, the trust is 0.
    """

    def __init__(self, frames: int, device: str = "cpu") -> None:
        self._ops = arithmetic(device)
        self._past: deque[Motion] = deque(maxlen=max(1, frames - 1))
        self._frames = frames

    def __call__(self, motion: Motion) -> Motion:
        """The composed motion of one frame."""
        if motion.stamp.discontinuity:
            self._past.clear()
        flow, trust = motion.flow, motion.trust
        if self._frames > 1:
            flow, trust = self._composed(flow, trust)
            self._past.appendleft(owned(motion))
        return Motion(motion.stamp, flow, trust)

    def close(self) -> None:
        """Forget every motion."""
        self._past.clear()

    def _composed(self, flow: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
        if len(self._past) < self._frames - 1 or any(past.flow.shape != flow.shape for past in self._past):
            return flow, trust * 0
        warp = self._ops.warp
        for past in self._past:
            trust = trust * warp(past.trust, flow, "bilinear")
            flow = flow + warp(past.flow, flow, "bilinear")
        return flow, trust * inside(flow)
