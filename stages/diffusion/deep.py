"""The deep feature of an earlier frame, in place of the deep part of the UNet.

A bundle exported with `--cache-deep` has its UNet twice: whole, with the deep feature as an output, and its shallow
part, with the deep feature as an input. DeepCache (Ma et al. 2023) takes the feature from an earlier step. Here it is
from an earlier frame at the same call of the sampler, so of the same noise level, and warped along the optical flow:

    deep(p) = D(p + F(p)),      F = f_n + F'(p + f_n(p)),   F' that of the frame before, 0 if D is its own

D is always a feature that the whole UNet gave. It is warped once, along the composed flow F, since a feature that is
warped again and again blurs. Every `every`-th frame the whole UNet runs; with 1 nothing is kept, and the pictures are
those of the UNet.

A row reads what the frame before left at the same call, as in `attention.py`. A network call has one network: if one of
its rows needs the deep part, it runs for all. So in a stream batch it runs with every call until the first frame has
left, and then with every `every`-th call.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import BundleError
from warpfuse.stages.arithmetic import Arithmetic, arithmetic
from warpfuse.stages.frame import Frame, Motion, Stamp

COVERAGE = 0.2
"""A frame with a mean trust below this begins a shot, as in attention to earlier frames."""

Key = tuple[int, bool]
"""A pass of the network for a frame: the number of the call, and whether it is the unconditional pass of guidance."""


def check_deep(outputs: tuple[TensorSpec, ...], splits: bool) -> None:
    """Raise BundleError unless the UNet has the output `deep` just if its bundle has the shallow part."""
    if any(spec.name == "deep" for spec in outputs) != splits:
        found, expected = ("missing", "needed") if splits else ("there", "not used")
        raise BundleError(
            f"unet: the output 'deep' is {found}, by the bundle it is {expected}. Export the bundle again"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """A deep feature, and where it is seen in a frame.

    deep  [1, c, h, w], of the frame for which the whole UNet ran
    flow  [1, 2, h, w] in cells, from frame `seq` to that one; None: it is the same
    seq   number of the last frame that used it
    age   number of frames that used it besides its own
    """

    deep: Tensor = field(repr=False)
    flow: Tensor | None
    seq: int
    age: int = 0


@dataclass(slots=True, eq=False)
class DeepPast:
    """The deep features that one row may use, and those that it leaves.

    seq, before  numbers of its frame and of the frame before; None: there is none
    flow         [1, 2, h, w] in cells, to the frame before; None: unknown
    every        the whole UNet runs for every such frame
    kept         the newest features of the shot, shared by its rows
    """

    seq: int
    before: int | None
    flow: Tensor | None = field(repr=False)
    every: int
    kept: dict[Key, Feature] = field(repr=False)
    ops: Arithmetic = field(repr=False)

    def due(self, key: Key) -> bool:
        """The deep part has to run for this pass."""
        last = self.kept.get(key)
        return last is None or self.flow is None or last.seq != self.before or last.age + 1 >= self.every

    def warped(self, key: Key) -> Tensor:
        """The feature for a pass that is not due, [1, c, h, w], float32. It stays for the next frame."""
        last, flow = self.kept[key], self.flow
        assert flow is not None, "a pass without motion is due"
        total = flow if last.flow is None else composed(flow, last.flow, self.ops)
        self.kept[key] = Feature(last.deep, total, self.seq, last.age + 1)
        return self.ops.warp(last.deep, total, "bilinear")

    def leave(self, key: Key, deep: Tensor) -> None:
        """Keep the feature that the whole UNet gave in a pass, which must not be the engine's memory."""
        self.kept[key] = Feature(deep, None, self.seq)


class DeepCache:
    """The deep features of one stream, passed from frame to frame.

    Everything is forgotten at a discontinuity, if the mean trust of the flow is below `COVERAGE`, and by `forget`. For
    the trust it waits for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._ops = arithmetic(device)
        self.forget()

    def forget(self) -> None:
        """Forget every frame. Rows under way keep what they have."""
        self._kept: dict[Key, Feature] = {}
        self._before: int | None = None
        self._held: Tensor | None = None
        self._cells = (1, 1)

    def enter(self, stamp: Stamp, motion: Motion | None, every: int, cells: tuple[int, int]) -> DeepPast | None:
        """The features for the next frame; None if the whole UNet runs for every one.

        motion  to the frame before, in px; None: unknown
        cells   (h, w) of the latent
        """
        if every == 1:
            self.forget()
            return None
        if stamp.discontinuity or motion is None or (self._kept and float(motion.trust.mean()) < COVERAGE):
            self.forget()
        flow = None if motion is None else self._flow(motion, cells)
        past = DeepPast(stamp.seq, self._before, flow, every, self._kept, self._ops)
        self._before, self._held, self._cells = stamp.seq, None, cells
        return past

    def skip(self, motion: Frame | None) -> None:
        """Note a held frame. If it has a motion, that of the next frame leads to it, so the two are composed."""
        if isinstance(motion, Motion) and self._kept:
            self._held = self._flow(motion, self._cells)

    def _flow(self, motion: Motion, cells: tuple[int, int]) -> Tensor:
        flow = self._ops.resize_flow(motion.flow, cells)
        flow = flow.clone() if flow is motion.flow else flow
        return flow if self._held is None else composed(flow, self._held, self._ops)


def composed(flow: Tensor, before: Tensor, ops: Arithmetic) -> Tensor:
    """The flow to the frame to which `before` leads, from the frame whose `flow` leads to the start of `before`."""
    return flow + ops.warp(before, flow, "bilinear")
