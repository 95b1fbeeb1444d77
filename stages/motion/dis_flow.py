"""Where each pixel was a frame ago, and how far that may be believed: OpenCV's DIS flow as a stage.

`Memory` is what every flow stage has in common, whatever gives it the flow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.engine.cuda_streams import ToDevice, ToHost
from warpfuse.stages.arithmetic import Arithmetic, arithmetic
from warpfuse.stages.borrowed import owned
from warpfuse.stages.cpu.occlusion import unique_match
from warpfuse.stages.formulas.confidence_mask import colour_histogram, same_shot
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

SMALLEST_PX = 12  # DIS refuses pictures of 8 pixels

_THUMBNAIL_PX = 96  # of the longer side: pixels enough to know a picture's colours by

_DOUBTFUL = 0.7
"""Share believed by unique matches alone below which the backward flow is computed as well. The first frame of another
shot is at 0.55 at most, frames within shots at 0.87 or more but for a few in a thousand (bench/LOG.md)."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of a frame.

    rgb      float32 [1, 3, h, w] in [0, 1], on the frame's device, at the size trust is judged at: that of the flow, or
             less
    colours  its `colour_histogram`
    """

    rgb: Tensor
    colours: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) the flow is computed at."""
        return self.rgb.shape[-2], self.rgb.shape[-1]


@dataclass(frozen=True, slots=True)
class GrayPast(Past):
    """As DIS compares it. gray: uint8 [h, w], host."""

    gray: Gray

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) the flow is computed at."""
        return self.gray.shape[0], self.gray.shape[1]


class Compared(NamedTuple):
    """What a comparison of a frame with the one before it gives.

    flow        flow_cur_to_prev [1, 2, h, w], at the size asked for and in pixels of it
    judged      the same at the size trust is judged at, that of `Past.rgb`
    back        flow_prev_to_cur there; None where it was not computed: it is not checked then
    unique      [1, 1, h, w] there: 0 where `unique_match` says that nothing is to be believed, else 1; None is 1
    """

    flow: Tensor
    judged: Tensor
    back: Tensor | None
    unique: Tensor | None = None


P = TypeVar("P", bound=Past)
Compare = Callable[[P, P, tuple[int, int]], Compared]


class Memory(Generic[P]):
    """The frame before, and what follows from comparing a frame with it: flow, trust, and whether there was a cut.

    coverage  none: as told. Else what is remembered is an anchor, and a frame that has less mean trust than this to it
              takes its place
    """

    def __init__(self, ops: Arithmetic) -> None:
        self._ops = ops
        self._past: P | None = None
        self.coverage: float | None = None

    def motion(self, frame: Picture, present: P, compare: Compare[P], settings: ConfidenceSettings) -> Motion:
        """Flow and trust of `frame`, which gives the size of both; `present` takes the place of the past.

        compare   (present, past, size) -> the flow at `size`; what trust is judged by is read before this returns
        settings  in pixels of present.size

        Trust is 0 everywhere, and flow too, where there is no past to compare with: the first frame, a discontinuity,
        another size. At the first frame of another shot trust alone is, and where a frame takes the anchor's place.
        """
        rgb = frame.rgb
        size = rgb.shape[-2], rgb.shape[-1]
        past, self._past = self._past, present
        if past is None or frame.stamp.discontinuity or past.size != present.size:
            return Motion(frame.stamp, rgb.new_zeros(1, 2, *size), rgb.new_zeros(1, 1, *size))
        found = compare(present, past, size)
        settings = settings.at(present.rgb.shape[-2] / present.size[0])
        m, coverage = self._ops.confidence(found.judged, found.back, present.rgb, past.rgb, settings.limits)
        if found.unique is not None:
            m.mul_(found.unique)
        m = self._ops.grown(m, settings.dilate_px, settings.feather_px)
        m.mul_(same_shot(coverage, present.colours, past.colours, settings.cut_coverage, settings.cut_colour))
        if self.coverage is not None:
            if float(m.mean()) < self.coverage:
                m = torch.zeros_like(m)
            else:
                self._past = past
        if m.shape[-2:] != size:
            m = self._ops.resized(m, size)
        return Motion(frame.stamp, found.flow, m)

    def begin(self, anchor: P) -> None:
        """The next frame is compared with this one."""
        self._past = anchor

    def forget(self) -> None:
        """The next frame has no past."""
        self._past = None


def settings_of(config: Any, prompts: object) -> FlowSettings:
    """Those of a configuration."""
    return config.stages.flow  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return Flow(opening.config.stages.flow, opening.device)


class Flow(Stage):
    """The stage that compares each frame with the one before it.

    Picture -> Motion. The first frame, one with `stamp.discontinuity`, one of another size and the first of another
    shot have no past: their trust is 0 everywhere (and but for the last their flow).

    DIS runs on the host: on a CUDA device the stage waits for a small gray picture; all else stays on the device.
    OpenCV's own threads are the caller's to set.
    """

    def __init__(self, settings: FlowSettings, device: str = "cpu") -> None:
        self._ops, self._host_ops = arithmetic(device), arithmetic("cpu")
        self._memory: Memory[GrayPast] = Memory(self._ops)
        self._gray_to_host = ToHost(device)
        self._flow_to_device, self._judged_to_device, self._unique_to_device = (ToDevice(device) for _ in range(3))
        self.update(settings)

    def __call__(self, frame: Picture) -> Motion:
        """Flow and trust of one frame. Raises ValueError for one that is too small for DIS."""
        return self._memory.motion(frame, self._see(frame.rgb), self._compared, self._settings.trust)

    def held(self, frame: Picture) -> Frame:
        """Of a repeat nothing: what is remembered stays that of the picture shown."""
        return Frame(frame.stamp) if frame.stamp.hold == "repeat" else self(frame)

    def compare_with_anchor(self, coverage: float) -> None:
        """From the next frame on: not with the frame before, but with the anchor (`Memory`)."""
        self._memory.coverage = coverage

    def begin(self, rgb: Tensor) -> None:
        """The next frame is compared with this picture, [1, 3, h, w] in [0, 1]."""
        self._memory.begin(self._see(rgb))

    def forget(self) -> None:
        """The next frame has no past."""
        self._memory.forget()

    def update(self, settings: FlowSettings) -> None:
        """Take new settings, from the next frame on. What is remembered stays, if its size still fits."""
        self._settings = settings
        self._dis = open_dis(settings.preset)

    def close(self) -> None:
        """Forget the frame before."""
        self._memory.forget()
        for way in (self._gray_to_host, self._flow_to_device, self._judged_to_device, self._unique_to_device):
            way.close()

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
        colours = colour_histogram(small, max(1, max(small.shape[-2:]) // _THUMBNAIL_PX))
        return GrayPast(small, colours, self._gray_to_host(gray))

    def _compared(self, present: GrayPast, past: GrayPast, size: tuple[int, int]) -> Compared:
        judged_size = present.rgb.shape[-2], present.rgb.shape[-1]
        flow = planes_of(self._dis.calc(present.gray, past.gray, None))
        judged = self._host_ops.resize_flow(flow, judged_size)
        unique = self._unique(present, past, judged)
        back = None
        if unique is None and self._settings.trust.check != "off":
            back = planes_of(self._dis.calc(past.gray, present.gray, None))
            back = self._judged_to_device(self._host_ops.resize_flow(back, judged_size))
        return Compared(
            self._ops.resize_flow(self._flow_to_device(flow), size),
            self._judged_to_device(judged),
            back,
            None if unique is None else self._unique_to_device(unique),
        )

    def _unique(self, present: GrayPast, past: GrayPast, flow: Tensor) -> Tensor | None:
        """`Compared.unique` on the host; None where the flow back is to be asked. flow: at the size that is judged."""
        settings = self._settings.trust
        if self._settings.backward_flow == "always" or settings.check == "off":
            return None
        limits = settings.at(flow.shape[-2] / present.size[0]).limits
        unique, share = unique_match(flow, present.gray, past.gray, limits)
        return unique if share >= _DOUBTFUL else None


def open_dis(preset: Preset) -> Any:
    """OpenCV's DIS flow at one of its presets; it owns its buffers and serves one thread."""
    dis = cv2.DISOpticalFlow.create(_PRESETS[preset])
    if preset == "balanced":
        dis.setPatchStride(4)
        dis.setGradientDescentIterations(16)
    return dis


def dis_flow(dis: Any, gray: Gray, gray_other: Gray) -> Tensor:
    """Where each pixel of gray is in gray_other: uint8 [h, w] both -> float32 [1, 2, h, w] pixels, on the host."""
    return planes_of(dis.calc(gray, gray_other, None))


def planes_of(vectors: npt.NDArray[np.float32]) -> Tensor:
    """OpenCV's flow, [h, w, 2] -> [1, 2, h, w]."""
    out = np.empty((1, 2, *vectors.shape[:2]), np.float32)
    cv2.split(vectors, list(out[0]))
    return torch.from_numpy(out)
