"""Optical flow to the last frame and its confidence, by OpenCV's DIS flow, as a stage.

`Memory` is shared by all flow stages, whatever computes the flow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.engine.cuda_streams import DownloadRing, ToDevice, ToHost
from warpfuse.stages.arithmetic import Arithmetic, arithmetic
from warpfuse.stages.borrowed import owned
from warpfuse.stages.cpu.occlusion import unique_match
from warpfuse.stages.formulas.confidence_mask import PictureColours
from warpfuse.stages.frame import Frame, Motion, Picture
from warpfuse.stages.motion.settings import ConfidenceSettings, FlowSettings, Preset
from warpfuse.stages.stage import Opening, Stage

Gray = npt.NDArray[np.uint8]

_PRESETS: dict[Preset, int] = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "balanced": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}

SMALLEST_PX = 12  # of a side; DIS refuses pictures of 8 pixels

_THUMBNAIL_PX = 96  # longer side of the picture whose colours are counted, which is enough for a histogram

_DOUBTFUL = 0.7
"""If unique matches confirm a smaller share of the pixels than this, the backward flow is computed as well. The first
frame of another shot has a share of at most 0.55, frames within a shot mostly 0.87 or more, but for a few in a thousand
(bench/LOG.md)."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of a frame for comparing the next one with it.

    rgb      float32 [1, 3, h, w] in [0, 1], on the frame's device, at the size at which trust is computed: the size of
             the flow or smaller
    colours  its `colour_histogram`
    """

    rgb: Tensor
    colours: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) at which the flow is computed."""
        return self.rgb.shape[-2], self.rgb.shape[-1]


@dataclass(frozen=True, slots=True)
class GrayPast(Past):
    """A `Past` for DIS. gray: the luma that DIS compares, uint8 [h, w], on the host."""

    gray: Gray

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) at which the flow is computed."""
        return self.gray.shape[0], self.gray.shape[1]


class Compared(NamedTuple):
    """The result of comparing a frame with an earlier one.

    flow    flow_cur_to_prev [1, 2, h, w], at the requested size and in its pixels
    judged  flow_cur_to_prev at the size at which trust is computed, that of `Past.rgb`
    back    flow_prev_to_cur at that size; None: it was not computed, and is not checked
    unique  result of `unique_match` [1, 1, h, w] at that size: 0 where the flow is not trusted, else 1; None: all 1
    """

    flow: Tensor
    judged: Tensor
    back: Tensor | None
    unique: Tensor | None = None


P = TypeVar("P", bound=Past)
Compare = Callable[[P, P, tuple[int, int]], Compared]
Choose = Callable[[Tensor, P, P], Callable[[], P]]
"""(stays, past, present) -> what gives past if `stays`, a bool on the device, else present. It is asked when the next
frame is compared, so that the host need not wait for the device at once."""


class Memory(Generic[P]):
    """Keeps an earlier frame, and makes flow and trust of comparing a frame with it. It also detects cuts.

    coverage  None: the frame kept is the last one. A number: the frame kept is an anchor, and is replaced by a frame
              with a lower mean trust than this
    """

    def __init__(self, ops: Arithmetic, choose: Choose[P]) -> None:
        self._ops, self._choose = ops, choose
        self._past: Callable[[], P] | None = None
        self.coverage: float | None = None

    def motion(self, frame: Picture, present: P, compare: Compare[P], settings: ConfidenceSettings) -> Motion:
        """Flow and trust of `frame`, both of its size. `present` then replaces the frame kept.

        present   what is kept of `frame`
        compare   (present, past, size) -> the flow at `size`. Its other results are used before this method returns
        settings  lengths are in pixels of present.size

        Without an earlier frame to compare with, flow and trust are 0 everywhere: for the first frame, after a
        discontinuity and after a change of size. For the first frame of another shot, and for a frame that becomes the
        anchor, the trust is 0 everywhere.
        """
        rgb = frame.rgb
        size = rgb.shape[-2], rgb.shape[-1]
        past = None if self._past is None else self._past()
        self._past = lambda: present
        if past is None or frame.stamp.discontinuity or past.size != present.size:
            return Motion(frame.stamp, rgb.new_zeros(1, 2, *size), rgb.new_zeros(1, 1, *size))
        found = compare(present, past, size)
        settings = settings.at(present.rgb.shape[-2] / present.size[0])
        flows = found.judged, found.back, found.unique
        seen = PictureColours(present.rgb, present.colours), PictureColours(past.rgb, past.colours)
        growth = settings.dilate_px, settings.feather_px
        m = self._ops.trusted(*flows, *seen, settings.limits, growth, settings.cut)
        if self.coverage is not None:
            stays = m.mean() >= self.coverage
            m.mul_(stays)
            self._past = self._choose(stays, past, present)
        if m.shape[-2:] != size:
            m = self._ops.resized(m, size)
        return Motion(frame.stamp, found.flow, m)

    def begin(self, anchor: P) -> None:
        """The next frame is compared with this one."""
        self._past = lambda: anchor

    def forget(self) -> None:
        """Forget the frame kept."""
        self._past = None


def settings_of(config: Any, prompts: object) -> FlowSettings:
    """The stage's settings in a configuration."""
    return config.stages.flow  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """Open the stage."""
    return Flow(opening.config.stages.flow, opening.device)


class Flow(Stage):
    """The stage that compares each frame with the last one.

    Picture -> Motion. For the first frame, a frame with `stamp.discontinuity` and a frame of another size, flow and
    trust are 0 everywhere. For the first frame of another shot the trust is.

    DIS runs on the host. With a CUDA device, the stage waits for a small gray picture; everything else stays on the
    device. The caller sets the number of OpenCV's threads.
    """

    def __init__(self, settings: FlowSettings, device: str = "cpu") -> None:
        self._ops, self._host_ops = arithmetic(device), arithmetic("cpu")
        self._memory: Memory[GrayPast] = Memory(self._ops, self._chosen)
        self._stays_to_host = DownloadRing((), torch.bool, device)
        self._gray_to_host = ToHost(device)
        self._with_unique, self._with_back = ToDevice(device), ToDevice(device)  # each for tensors of one size
        self.update(settings)

    def __call__(self, frame: Picture) -> Motion:
        """Flow and trust of one frame. Raises ValueError for one that is too small for DIS."""
        return self._memory.motion(frame, self._see(frame.rgb), self._compared, self._settings.trust)

    def held(self, frame: Picture) -> Frame:
        """No motion for a repeat, so that the frame kept remains the one whose picture is shown."""
        return Frame(frame.stamp) if frame.stamp.hold == "repeat" else self(frame)

    def compare_with_anchor(self, coverage: float) -> None:
        """Compare with the anchor instead of the last frame, from the next frame on (`Memory`)."""
        self._memory.coverage = coverage

    def begin(self, rgb: Tensor) -> None:
        """The next frame is compared with this picture, [1, 3, h, w] in [0, 1]."""
        self._memory.begin(self._see(rgb))

    def forget(self) -> None:
        """Forget the frame kept."""
        self._memory.forget()

    def update(self, settings: FlowSettings) -> None:
        """Take new settings, from the next frame on. The frame kept is used if its size still fits."""
        self._settings = settings
        self._dis = open_dis(settings.preset)

    def close(self) -> None:
        """Forget the frame kept, and free the pinned memory."""
        self._memory.forget()
        for copier in (self._gray_to_host, self._with_unique, self._with_back):
            copier.close()

    def _see(self, rgb: Tensor) -> GrayPast:
        h, w = size = rgb.shape[-2], rgb.shape[-1]
        long_side = self._settings.long_side
        if long_side is not None and max(h, w) > long_side:
            scale = long_side / max(h, w)
            size = max(SMALLEST_PX, round(h * scale)), max(SMALLEST_PX, round(w * scale))
        if min(size) < SMALLEST_PX:
            raise ValueError(f"DIS flow needs frames of {SMALLEST_PX} pixels or more each way, got {w}x{h}")
        gray, small = self._ops.seen(rgb, size, self._settings.trust_cell)
        small = owned(small)  # the next frame is compared with it
        colours = self._ops.colour_histogram(small, max(1, max(small.shape[-2:]) // _THUMBNAIL_PX))
        return GrayPast(small, colours, self._gray_to_host(gray))

    def _chosen(self, stays: Tensor, past: GrayPast, present: GrayPast) -> Callable[[], GrayPast]:
        """See `Choose`. It is asked when the gray picture of the next frame has come, so the answer has come before."""
        answer = self._stays_to_host.download(stays)
        return lambda: past if answer.wait() else present

    def _compared(self, present: GrayPast, past: GrayPast, size: tuple[int, int]) -> Compared:
        judged_size = present.rgb.shape[-2], present.rgb.shape[-1]
        flow = planes_of(self._dis.calc(present.gray, past.gray, None))
        judged = self._host_ops.resize_flow(flow, judged_size)
        unique = self._unique(present, past, judged)
        back = None
        if unique is None and self._settings.trust.check != "off":
            back = self._host_ops.resize_flow(planes_of(self._dis.calc(past.gray, present.gray, None)), judged_size)
        to_device = self._with_unique if back is None else self._with_back
        flow, judged, *more = to_device.together([x for x in (flow, judged, back, unique) if x is not None])
        return Compared(
            self._ops.resize_flow(flow, size),
            judged,
            None if back is None else more[0],
            None if unique is None else more[-1],
        )

    def _unique(self, present: GrayPast, past: GrayPast, flow: Tensor) -> Tensor | None:
        """`Compared.unique` on the host; None if the backward flow is needed. flow: at the size of `Past.rgb`."""
        settings = self._settings.trust
        if self._settings.backward_flow == "always" or settings.check == "off":
            return None
        limits = settings.at(flow.shape[-2] / present.size[0]).limits
        unique, share = unique_match(flow, present.gray, past.gray, limits)
        return unique if share >= _DOUBTFUL else None


def open_dis(preset: Preset) -> Any:
    """OpenCV's DIS flow with one of the presets. The object owns its buffers and may be used by one thread."""
    dis = cv2.DISOpticalFlow.create(_PRESETS[preset])
    if preset == "balanced":
        dis.setPatchStride(4)
        dis.setGradientDescentIterations(16)
    return dis


def dis_flow(dis: Any, gray: Gray, gray_other: Gray) -> Tensor:
    """Where each pixel of gray is in gray_other: uint8 [h, w] both -> float32 [1, 2, h, w] pixels, on the host."""
    return planes_of(dis.calc(gray, gray_other, None))


def planes_of(vectors: npt.NDArray[np.float32]) -> Tensor:
    """OpenCV's layout of a flow to ours: [h, w, 2] -> [1, 2, h, w]."""
    out = np.empty((1, 2, *vectors.shape[:2]), np.float32)
    cv2.split(vectors, list(out[0]))
    return torch.from_numpy(out)
