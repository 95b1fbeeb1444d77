"""Decoding video files on an NVIDIA card (NVDEC): the pictures stay there, as NV12.

A picture lies in a surface of the decoder, which is used again when the last reference to its frame is gone. FFmpeg
works on the default stream of the card, so a reader waits for an event of that stream.

What a card does not decode is decoded on the host. Pictures are converted to RGB as swscale does it, within one level;
a file's first picture is compared, and if it differs more, all are converted on the host. So are those that need more
than a conversion to RGB, because they are turned, interlaced, transparent, HDR or of another format.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
import torch
from av.codec.hwaccel import HWAccel
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.engine.errors import one_line
from warpfuse.stages.errors import SourceError
from warpfuse.stages.formulas.nv12 import rgb_of
from warpfuse.stages.frame import CardFrame, Stamp
from warpfuse.stages.sources.colour import Colour
from warpfuse.stages.sources.display import Orientation, matrix_and_range
from warpfuse.stages.sources.file import PictureDecoder, Rgb8

_ON_CARD, _FORMAT = "cuda", "nv12"
_LEFT = {"h264", "hevc", "mpeg2video", "mpeg4"}  # chroma is on the left if nothing else is told
_LEVEL, _FEW = 1.01, 1e-3  # levels by which pixels may differ from the host's, and the share of those that differ more


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A picture in a surface of the decoder, or a part of it.

    device        of the memory
    ready         event after which the picture is written
    frame         holds the surface
    matrix, full, left  see `nv12.rgb_of`
    rect          the part: left, top, width, height
    to_host       makes RGB of the whole picture on the host
    """

    device: str
    ready: card.Event
    frame: Any
    matrix: int
    full: bool
    left: bool
    rect: tuple[int, int, int, int]
    to_host: Callable[[], Rgb8]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.rect[2], self.rect[3]

    def rgb(self) -> Rgb8:
        """The picture on the host."""
        left, top, width, height = self.rect
        return np.ascontiguousarray(self.to_host()[top : top + height, left : left + width])

    def part(self, left: int, top: int, width: int, height: int) -> "Surface":
        """A part of this one."""
        return replace(self, rect=(self.rect[0] + left, self.rect[1] + top, width, height))

    def planes(self) -> Tensor:
        """float32 [1, 3, h, w] in [0, 1], made on the current stream, which has waited for `ready`."""
        y, uv = (card.imported(plane) for plane in self.frame.planes)
        left, top, width, height = self.rect
        return rgb_of(y, uv, self.matrix, full=self.full, left=self.left)[..., top : top + height, left : left + width]


class CardDecoder(PictureDecoder):
    """Opens decoders of one card, and takes their pictures.

    device    "cuda:N"
    surfaces  options of a decoder: surfaces for pictures on their way, besides those that it needs itself
    """

    surfaces: Mapping[str, str] = {"extra_hw_frames": "8"}

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._left: bool | None = None

    def settings(self) -> HWAccel:
        """For `av.open`. Raises SourceError where the card or its driver does not decode."""
        wanted = HWAccel("cuda", card.index_of(self._device), is_hw_owned=True)
        try:
            wanted.create(av.Codec("h264", "r"))
        except Exception as error:  # noqa: BLE001  (PyAV raises more than FFmpeg's errors)
            raise SourceError(
                f"decoder: {self._device} was asked for, and its driver gives no video decoder "
                f"({one_line(error, 120)}). Give decoder=host"
            ) from None
        return wanted

    def on_host(self, frame: VideoFrame) -> VideoFrame:
        """A picture of the card as a frame of the host; others as they are."""
        if frame.format.name != _ON_CARD or frame.sw_format is None:
            return frame
        return frame.reformat(format=frame.sw_format.name)

    def compare(self, frame: VideoFrame, codec: str, to_host: Callable[[VideoFrame], Rgb8]) -> None:
        """Learn where chroma lies in a file, which no frame tells, by comparing its first picture with the host's.

        codec  of the file, which decides for a picture without colours
        """
        if not self._plain(frame):
            return
        h, rgb = frame.height, torch.from_numpy(to_host(frame))
        nv12 = torch.from_numpy(cast(npt.NDArray[np.uint8], frame.reformat(format=_FORMAT).to_ndarray()))
        matrix, colours = matrix_and_range(frame)

        def gap(left: bool) -> Tensor:
            planes = nv12[:h], nv12[h:].view(h // 2, -1, 2)
            found = rgb_of(*planes, matrix, full=colours == int(ColorRange.JPEG), left=left)
            return (255 * found[0].permute(1, 2, 0) - rgb).abs()

        gaps = {left: gap(left) for left in sorted((True, False), reverse=codec in _LEFT)}
        best = min(gaps, key=lambda left: float(gaps[left].mean()))
        self._left = best if float((gaps[best] > _LEVEL).float().mean()) < _FEW else None

    def takes(self, frame: VideoFrame) -> bool:
        """The picture lies on the card, and nothing but a conversion to RGB is needed."""
        return self._left is not None and self._plain(frame)

    def _plain(self, frame: VideoFrame) -> bool:
        if frame.format.name != _ON_CARD or frame.sw_format is None or frame.sw_format.name != _FORMAT:
            return False
        even = frame.width % 2 == frame.height % 2 == 0
        upright = Orientation.of(frame) == Orientation()
        return even and upright and not frame.interlaced_frame and Colour.of(frame) is None

    def why_not(self, frame: VideoFrame) -> str:
        """In words, why a picture does not stay on the card."""
        if frame.format.name == _ON_CARD:
            return "they need more than a conversion to RGB" if not self._plain(frame) else "its colours differ there"
        return f"the card does not decode a file of this kind ({frame.format.name})"

    def taken(self, stamp: Stamp, frame: VideoFrame, to_host: Callable[[VideoFrame], Rgb8]) -> CardFrame:
        """A frame that `takes` allows. to_host: makes RGB of it on the host; never called twice at once."""
        ready = card.recorded(card.default_stream(self._device))
        matrix, colours = matrix_and_range(frame)

        def host() -> Rgb8:
            with self._lock:
                return to_host(frame)

        full, rect = colours == int(ColorRange.JPEG), (0, 0, frame.width, frame.height)
        return CardFrame(stamp, Surface(self._device, ready, frame, matrix, full, bool(self._left), rect, host))
