"""Converting RGB to YUV for video: BT.709, limited range."""

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from warpfuse.stages.errors import SinkError
from warpfuse.stages.sources.display import EXACT, ONE_THREAD

_SAMPLING = int(Interpolation.AREA) | EXACT

CODE = 1  # BT.709 in ITU-T H.273, for matrix, primaries and transfer
LIMITED = 1


class ToBt709:
    """Converts pictures of one size to one YUV format (`yuv420p`, `nv12`, `yuyv422`, `yuva420p`).

    It keeps one swscale context, which takes about 15 MB in FFmpeg 8. One thread at a time.
    """

    def __init__(self, pixel_format: str) -> None:
        self._format = pixel_format
        self._reformatter = VideoReformatter()

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> VideoFrame:
        """Convert a picture, uint8 [h, w, 3], or [h, w, 4] with alpha, to a new frame."""
        return self._reformatter.reformat(
            VideoFrame.from_ndarray(rgb, format="rgb24" if rgb.shape[2] == 3 else "rgba"),
            format=self._format,
            src_color_range=int(ColorRange.JPEG),
            dst_colorspace=int(Colorspace.ITU709),
            dst_color_range=int(ColorRange.MPEG),
            interpolation=_SAMPLING,
            **ONE_THREAD,
        )


def require_even(name: str, size: tuple[int, int]) -> None:
    """Raise SinkError for an odd width or height, which subsampled chroma does not allow."""
    width, height = size
    if width % 2 or height % 2 or min(size) < 2:
        even = f"{max(2, width // 2 * 2)}x{max(2, height // 2 * 2)}"
        raise SinkError(f"{name}: even width and height are needed, got {width}x{height}. Try {even}.")
