"""Converting decoded pictures to RGB for display: colour, rotation, pixel aspect, crop and scale."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.colour import Colour, ColourConversion
from warpfuse.stages.sources.transparency import BLACK, Rgb, composed, may_be_transparent

# swscale.h's ACCURATE_RND, FULL_CHR_H_INT, FULL_CHR_H_INP: without them colours are wrong by up to 8 levels. PyAV has
# names for them since 18.
EXACT = 0x40000 | 0x2000 | 0x4000
_SHRINK = int(Interpolation.AREA) | EXACT  # averages over areas: no aliasing, in half the time of bicubic
_ENLARGE = int(Interpolation.BICUBIC) | EXACT

# FFmpeg has one set of numbers for matrices in frames (AVCOL_SPC_*) and another for swscale (SWS_CS_*).
_MATRIX_OF_TAG = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709, _BT601 = 1, 5
_SD_WIDTH, _SD_LINES = 1280, 576  # untagged video of this width or more, or of more lines, is HD, as in mpv
_MOST_PIXELS = 1 << 26  # of a scaled picture before its crop; a larger one means an absurd aspect ratio

_WIDEN = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)


def _unnamed(kinds: type[Type], value: int) -> Type:
    """A member for a kind of side data that FFmpeg has and PyAV does not name, as EXIF."""
    kind: Any = object.__new__(kinds)
    kind._name_, kind._value_ = f"UNNAMED_{value}", value
    return kind  # type: ignore[no-any-return]


# Without this, one unnamed kind makes all side data of a frame unreadable.
Type._missing_ = classmethod(_unnamed)  # type: ignore[method-assign, assignment]

ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}  # no option in PyAV 16


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture is turned for display: first transposed, then mirrored left-right, then top-bottom."""

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> "Orientation":
        """The orientation in the frame's display matrix, rounded to quarter turns."""
        held: Any = frame.side_data
        data = held.get(Type.DISPLAYMATRIX)
        if data is None:
            return cls()
        a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(data), np.int32)[:5])
        # A stored point (p, q) is displayed at (a p + c q, b p + d q).
        if abs(a) >= abs(b):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    def apply(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A turned view of uint8 [h, w, 3]."""
        if self.transposed:
            rgb = rgb.transpose(1, 0, 2)
        if self.mirror_x:
            rgb = rgb[:, ::-1]
        if self.mirror_y:
            rgb = rgb[::-1]
        return rgb


class Display:
    """Converts decoded pictures of one stream, even of changing size, to RGB of one size.

    It has the source's only swscale context, since each takes about 15 MB in FFmpeg 8.

    background  colour behind transparent parts
    notes       conversions beyond scaling, in words for the user, each once
    """

    def __init__(self, first: VideoFrame, pixel_aspect: Fraction | None, size: tuple[int, int] | None) -> None:
        self._aspect = _plausible(pixel_aspect or Fraction(1))
        self._turn = Orientation.of(first)
        shown = self._shown(first)
        self.natural = (max(2, round(shown[0]) // 2 * 2), max(2, round(shown[1]) // 2 * 2))
        self.size = size or self.natural
        self._cover(first)  # so that it raises before the run starts
        self._reformatter = VideoReformatter()
        self.background: Rgb = BLACK
        self.notes: list[str] = []
        self._colour: Colour | None = None
        self._conversion: ColourConversion | None = None

    def __call__(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Convert a frame to uint8 RGB [h, w, 3], C-contiguous: cropped centrally to `size`'s aspect, and scaled."""
        width, height = self.size
        if may_be_transparent(frame):
            frame = self._composed(frame)
        cover_w, cover_h = self._cover(frame)
        stored_w, stored_h = (cover_h, cover_w) if self._turn.transposed else (cover_w, cover_h)
        shrinks = stored_w * stored_h < frame.width * frame.height
        conversion = self._conversion_of(frame)
        scaled = self._reformatter.reformat(
            frame,
            width=stored_w,
            height=stored_h,
            format="rgb24" if conversion is None else conversion.format,
            **_colour(frame),
            interpolation=_SHRINK if shrinks else _ENLARGE,
            **ONE_THREAD,
        )
        held: Any = scaled.to_ndarray()
        rgb = np.asarray(held, np.uint8) if conversion is None else conversion(held)
        if frame.color_range == int(ColorRange.MPEG) and frame.format.name.startswith("gray"):
            rgb = _WIDEN[rgb]  # swscale treats grey as full range, whatever its tag
        turned = self._turn.apply(rgb)
        left, top = (cover_w - width) // 2, (cover_h - height) // 2
        return np.ascontiguousarray(turned[top : top + height, left : left + width])

    def _composed(self, frame: VideoFrame) -> VideoFrame:
        """Compose the frame on the background, at its own size: scaling first would mix in colours of hidden pixels."""
        rgba: Any = VideoReformatter().reformat(
            frame, format="rgba", **_colour(frame), interpolation=_ENLARGE, **ONE_THREAD
        )
        whole = composed(rgba.to_ndarray(), self.background)
        if whole is None:
            return frame
        self.tell("transparent parts shown on " + ("black" if self.background == BLACK else _hex(self.background)))
        whole.color_primaries, whole.color_trc = frame.color_primaries, frame.color_trc
        return whole

    def _conversion_of(self, frame: VideoFrame) -> ColourConversion | None:
        """The conversion of the frame's colours to BT.709; None if none is needed."""
        colour = Colour.of(frame)
        if colour != self._colour:
            self._colour, self._conversion = colour, ColourConversion(colour) if colour is not None else None
            self.tell(colour.note if colour is not None else None)
        return self._conversion

    def tell(self, line: str | None) -> None:
        """Add a line to the notes, unless it is None or there already."""
        if line is not None and line not in self.notes:
            self.notes.append(line)

    def _shown(self, frame: VideoFrame) -> tuple[Fraction, Fraction]:
        """Displayed width and height, px."""
        width, height = frame.width * self._aspect, Fraction(frame.height)
        return (height, width) if self._turn.transposed else (width, height)

    def _cover(self, frame: VideoFrame) -> tuple[int, int]:
        """The size, px, at which the whole picture just covers `size`. Raises SourceError if it is absurdly large."""
        width, height = self.size
        shown_w, shown_h = self._shown(frame)
        if 0 <= shown_w - width < 2 and 0 <= shown_h - height < 2:
            return round(shown_w), round(shown_h)  # crop an odd row or column: scaling by 0.998 would blur all others
        scale = max(width / shown_w, height / shown_h)
        cover = max(width, round(shown_w * scale)), max(height, round(shown_h * scale))
        if cover[0] * cover[1] > max(_MOST_PIXELS, 4 * width * height):
            raise SourceError(
                f"a picture of {frame.width}x{frame.height} cannot be cropped to {width}x{height}: "
                "their aspect ratios are too far apart. Choose another size."
            )
        return cover


def _hex(colour: Rgb) -> str:
    return f"#{colour[0]:02x}{colour[1]:02x}{colour[2]:02x}"


def _plausible(aspect: Fraction) -> Fraction:
    """The pixel aspect, but 1 for nearly square pixels (399/400, from rounding by a scaler) and for absurd values."""
    square = abs(aspect - 1) < Fraction(1, 100) or not Fraction(1, 8) <= aspect <= 8
    return Fraction(1) if square else aspect


def matrix_and_range(frame: VideoFrame) -> tuple[int, int]:
    """The matrix of a YUV frame, by swscale's number, and its range; 0: not known, which swscale takes as limited.

    Untagged video is BT.709 if it is HD by its width or its lines, else BT.601. Untagged YUV has limited range, except
    for the yuvj formats.
    """
    hd = frame.width >= _SD_WIDTH or frame.height > _SD_LINES
    matrix = _MATRIX_OF_TAG.get(frame.colorspace, _BT709 if hd else _BT601)
    tagged = int(frame.color_range)
    if frame.format.name.startswith("yuvj"):
        tagged = int(ColorRange.JPEG)
    elif not tagged and frame.format.name.startswith("yuv"):
        tagged = int(ColorRange.MPEG)
    return matrix, tagged


def _colour(frame: VideoFrame) -> dict[str, int]:
    """swscale's options for the frame's colour. Empty for RGB, whose values a matrix would change."""
    if frame.format.is_rgb:
        return {}
    matrix, tagged = matrix_and_range(frame)
    return {
        "src_colorspace": matrix,
        "src_color_range": tagged,
        # RGB has no matrix. But PyAV 16 passes no options at all if source and destination are equal.
        "dst_colorspace": _BT601 if matrix == _BT709 else _BT709,
        "dst_color_range": int(ColorRange.JPEG),
    }
