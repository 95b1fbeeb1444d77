import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame

Picture = npt.NDArray[np.uint8]


def counted(index: int, width: int = 64, height: int = 48) -> Picture:
    """A picture from which `index` can be read after lossy coding: its bits are eight black or white blocks."""
    picture = np.full((height, width, 3), 60, np.uint8)
    for bit in range(8):
        picture[:, bit * width // 8 : (bit + 1) * width // 8] = 255 * (index >> bit & 1)
    return picture


def number_in(picture: Picture) -> int:
    """The `index` of a `counted` picture."""
    width = picture.shape[1]
    middles = [picture[:, (2 * bit + 1) * width // 16].mean() for bit in range(8)]
    return sum(1 << bit for bit, level in enumerate(middles) if level > 128)


def exif(orientation: int, little: bool = True) -> bytes:
    """An APP1 segment of JPEG that holds an orientation and the name of a camera's maker."""
    order = "<" if little else ">"
    tags = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(
        order + "HHI4s", 0x010F, 2, 4, b"Cam"
    )
    head = b"II*\0" if little else b"MM\0*"
    body = b"Exif\0\0" + head + struct.pack(order + "IH", 8, 2) + tags + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def fill(frame: VideoFrame, planes: Iterable[npt.NDArray[Any]]) -> VideoFrame:
    for plane, values in zip(frame.planes, planes, strict=True):
        raw = np.ascontiguousarray(values)
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : raw.shape[1] * raw.itemsize] = raw.view(np.uint8).reshape(raw.shape[0], -1)
        plane.update(rows.tobytes())
    return frame


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    def make(
        name: str,
        frames: Sequence[VideoFrame | Picture],
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        pts: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 25),
        rate: int | Fraction = 25,
        matrix: Sequence[int] | None = None,
        sar: Fraction | None = None,
        colour: dict[str, int] | None = None,
        options: dict[str, str] | None = None,
        muxer_options: dict[str, str] | None = None,
        format: str | None = None,
    ) -> Path:
        if codec not in av.codecs_available:
            pytest.skip(f"this FFmpeg has no encoder {codec}")
        path = tmp_path / name
        first = frames[0]
        height, width = (first.height, first.width) if isinstance(first, VideoFrame) else first.shape[:2]
        with av.open(str(path), "w", format=format, container_options=muxer_options or {}) as out:
            stream: Any = out.add_stream(codec, rate=rate, options=options or {})
            context = stream.codec_context
            context.width, context.height, context.pix_fmt = width, height, pix_fmt
            context.time_base = time_base
            if sar is not None:
                context.sample_aspect_ratio = sar
            for tag, value in (colour or {}).items():
                setattr(context, tag, value)
            if matrix is not None:
                if not hasattr(stream, "set_display_matrix"):
                    pytest.skip("this PyAV cannot write a display matrix")
                stream.set_display_matrix(matrix)
            for index, held in enumerate(frames):
                frame = held if isinstance(held, VideoFrame) else VideoFrame.from_ndarray(held, format="rgb24")
                if frame.format.name != pix_fmt:
                    frame = frame.reformat(format=pix_fmt)
                frame.pts = index if pts is None else pts[index]
                frame.time_base = time_base
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        return path

    return make
