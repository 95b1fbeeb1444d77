"""Law: interlaced video comes as whole frames, one for one and at their own times; progressive video as it is."""

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.fields import Deinterlacer

from .conftest import counted, number_in

TOP_FIRST = {"flags": "+ildct+ilme", "x264opts": "tff=1", "crf": "10"}
WIDTH, HEIGHT = 192, 128


def moment(index: int) -> Any:
    """Soft bars that move sideways, numbered above by the frame they are woven into."""
    xx = np.arange(WIDTH)
    row = (128 + 100 * np.sin((xx + 5 * index) / 7)).astype(np.uint8)
    picture = np.repeat(np.repeat(row[None], HEIGHT, 0)[..., None], 3, 2)
    picture[: HEIGHT // 4] = counted(index // 2, WIDTH, HEIGHT // 4)
    return picture


def woven(top: Any, bottom: Any) -> Any:
    frame = top.copy()
    frame[1::2] = bottom[1::2]
    return frame


def interlaced(count: int) -> list[Any]:
    return [woven(moment(2 * i), moment(2 * i + 1)) for i in range(count)]


def telecined(cycles: int) -> list[Any]:
    """Four pictures of film, 24 a second, in five frames."""
    frames = []
    for cycle in range(cycles):
        a, b, c, d = (moment(8 * cycle + 2 * i) for i in range(4))
        frames += [a, b, woven(b, c), woven(c, d), d]
    return frames


def comb(rgb: Any) -> float:
    """How far rows differ from the mean of their neighbours, levels, below the numbers."""
    rows = rgb[HEIGHT // 4 + 2 :, :, 1].astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


def read_all(url: str) -> tuple[list[RawFrame], str | None]:
    source = open_source(url)
    frames = list(iter(source.read, None))
    source.close()
    return frames, source.warning


def by_ffmpeg(clip: Path) -> Any:
    """The frames as the program ffmpeg's bwdif gives them, uint8 [n, h, w, 3]."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(clip),
        "-vf",
        "bwdif=send_frame",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", TOP_FIRST),
        ("a.ts", "mpeg2video", "yuv420p", {"flags": "+ildct+ilme", "qscale": "2"}),
        ("a.mkv", "libx264", "yuv420p10le", TOP_FIRST),
    ],
)
def test_what_is_interlaced_is_combed_no_more_than_bwdif_leaves_it(
    make_clip: Callable[..., Path], name: str, codec: str, pix_fmt: str, options: dict[str, str]
):
    clip = make_clip(name, interlaced(20), codec, pix_fmt, options=options)
    frames, line = read_all(str(clip))
    expected = by_ffmpeg(clip)
    assert len(frames) == len(expected) == 20
    left, reference = (np.mean([comb(rgb) for rgb in kind]) for kind in ([f.rgb for f in frames], expected))
    assert left <= 1.2 * reference
    assert np.mean([comb(rgb) for rgb in interlaced(20)]) > 5 * reference  # guards the test
    assert line is not None
    assert "interlaced" in line
    assert "telecined" not in line


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_each_frame_comes_once_at_its_own_time(make_clip: Callable[..., Path], count: int):
    pts = [i * i + 3 * i for i in range(count)]
    clip = make_clip("a.mp4", interlaced(count), pts=pts, options=TOP_FIRST)
    frames, _ = read_all(str(clip))
    assert [number_in(frame.rgb[: HEIGHT // 4]) for frame in frames] == list(range(count))
    assert [frame.stamp.pts_ns for frame in frames] == [p * 40_000_000 for p in pts]


def test_film_in_five_frames_of_four_is_put_together_again(make_clip: Callable[..., Path]):
    clip = make_clip("film.mp4", telecined(8), rate=Fraction(30000, 1001), options=TOP_FIRST)
    frames, line = read_all(str(clip))
    assert len(frames) == 40
    assert line is not None
    assert "telecined" in line
    expected = by_ffmpeg(clip)
    assert np.mean([comb(f.rgb) for f in frames]) <= 1.2 * np.mean([comb(rgb) for rgb in expected])
    film = [moment(2 * i) for i in range(32)]
    late = [frame.rgb.astype(int) for frame in frames[20:]]  # when the cadence is known
    off = [min(np.abs(rgb - picture).mean() for picture in film) for rgb in late]
    assert max(off) < 3, "each is a picture of the film, not two of them"


def decoded(clip: Path) -> tuple[Any, list[VideoFrame]]:
    with av.open(str(clip)) as opened:
        return opened.streams.video[0].codec_context, list(opened.decode(video=0))


def test_progressive_frames_pass_as_they_are_before_and_among_interlaced_ones(make_clip: Callable[..., Path]):
    context, plain = decoded(make_clip("plain.mp4", [moment(i) for i in range(12)], options={"crf": "10"}))
    _, fields = decoded(make_clip("fields.mp4", interlaced(6), options=TOP_FIRST))
    stored = [frame.to_ndarray() for frame in plain]
    mixed = [*plain[:4], *fields[:3], *plain[4:8], *fields[3:], *plain[8:]]
    for index, frame in enumerate(mixed):
        frame.pts = 7 * index
    deinterlacer = Deinterlacer(context)
    assert [deinterlacer(frame) for frame in mixed[:4]] == [[frame] for frame in mixed[:4]]
    assert deinterlacer.note is None
    done = [*mixed[:4], *(held for frame in mixed[4:] for held in deinterlacer(frame)), *deinterlacer(None)]
    assert [frame.pts for frame in done] == [7 * index for index in range(18)]
    kept = [*done[:4], *done[7:11], *done[14:]]
    assert all(np.array_equal(frame.to_ndarray(), before) for frame, before in zip(kept, stored, strict=True))
    assert not any(frame.interlaced_frame for frame in done)


def test_a_container_that_says_interlaced_is_believed_where_the_codec_does_not_know(make_clip: Callable[..., Path]):
    if not hasattr(av.VideoCodecContext, "field_order"):
        pytest.skip("this PyAV tells no field order")
    clip = make_clip("a.mov", interlaced(10), "png", "rgb24", colour={"field_order": 4})
    _, stored = decoded(clip)
    assert not stored[0].interlaced_frame  # guards the test
    frames, line = read_all(str(clip))
    assert line is not None
    assert "interlaced" in line
    assert np.mean([comb(f.rgb) for f in frames]) < 0.3 * np.mean([comb(rgb) for rgb in interlaced(10)])


def test_tags_and_rotation_of_what_was_interlaced_are_kept(make_clip: Callable[..., Path]):
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    colour = {"colorspace": 6, "color_range": 2}
    red = np.full((HEIGHT, WIDTH, 3), (200, 40, 40), np.uint8)
    red[:, WIDTH // 2 :] = 0
    frame = VideoFrame.from_ndarray(red, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=5, dst_color_range=2, src_color_range=2
    )
    clip = make_clip("a.mov", [frame] * 3, colour=colour, matrix=turned, options=TOP_FIRST)
    frames, line = read_all(str(clip))
    assert line is not None
    assert frames[0].rgb.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(frames[0].rgb[WIDTH // 4, HEIGHT // 2].astype(int) - (200, 40, 40)).max() <= 4
    assert frames[0].rgb[3 * WIDTH // 4, HEIGHT // 2].max() <= 4


def test_a_stream_over_http_is_deinterlaced(make_clip: Callable[..., Path], tmp_path: Path):
    from support import servers

    clip = make_clip("a.mp4", interlaced(20), options=TOP_FIRST, muxer_options={"movflags": "faststart"})
    web = servers.Web(tmp_path)
    try:
        source = open_source(f"{web.url}/{clip.name}")
        frames = list(iter(source.read, None))
        source.close()
    finally:
        web.close()
    assert len(frames) == 20
    assert np.mean([comb(f.rgb) for f in frames]) < 0.3 * np.mean([comb(rgb) for rgb in interlaced(20)])
    assert source.warning is not None
    assert "interlaced" in source.warning
