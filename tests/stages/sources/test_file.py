"""Law: every frame of a clip comes once, in order, at its own time, and what cannot be read is said in one line."""

import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from warpfuse.stages.errors import SourceError
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sources import open_source, probe
from warpfuse.stages.sources.container import Demuxer

from .conftest import counted, exif, number_in

CLIPS = Path(__file__).parents[4] / "shared" / "data" / "clips"


def read_all(path: Path, **options: Any) -> tuple[list[RawFrame], Any]:
    source = open_source(str(path), **options)
    frames = list(iter(source.read, None))
    source.close()
    return frames, source


def hard_to_code(count: int) -> list[Any]:
    """Numbered pictures with noise below, so that each frame takes kilobytes."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 32, 128, 3), np.uint8)
    return [np.concatenate([counted(i, 128, 96), noise[i]]) for i in range(count)]


def numbers(frames: list[RawFrame]) -> list[int]:
    return [number_in(frame.rgb) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mov", "libx264", "yuv444p"),
        ("a.mkv", "libx264", "yuv420p10le"),
        ("a.mkv", "libx265", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mkv", "libsvtav1", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "mpeg2video", "yuv420p"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mov", "prores", "yuv422p10le"),
        ("a.mov", "png", "rgb24"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.flv", "flv1", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_every_frame_comes_once_and_in_order(make_clip: Callable[..., Path], name: str, codec: str, pix_fmt: str):
    codec = {"flv1": "flv"}.get(codec, codec)
    options = {"preset": "10"} if codec == "libsvtav1" else {}
    pictures = [counted(i, 128, 96) for i in range(20)]
    with ThreadPoolExecutor(1) as pool:  # SVT-AV1 gives its caller's thread real-time priority, for ever
        clip = pool.submit(make_clip, name, pictures, codec, pix_fmt, options=options).result()
    frames, source = read_all(clip)
    assert numbers(frames) == list(range(20))
    assert [frame.stamp.seq for frame in frames] == list(range(20))
    assert all(f.rgb.shape == (96, 128, 3) and f.rgb.dtype == np.uint8 and f.rgb.flags.c_contiguous for f in frames)
    assert [round(frame.stamp.pts_ns / 40e6) for frame in frames] == list(range(20))
    assert source.warning is None


@pytest.mark.parametrize("time_base", [Fraction(1, 90000), Fraction(1, 12800), Fraction(1001, 30000)])
def test_times_are_the_streams_own(make_clip: Callable[..., Path], time_base: Fraction):
    pts = [0, 1, 2, 5, 6, 30, 31, 100]
    clip = make_clip("vfr.mp4", [counted(i) for i in range(8)], pts=[p * 7 for p in pts], time_base=time_base)
    frames, _ = read_all(clip)
    exact = [round(p * 7 * time_base * 10**9) for p in pts]
    assert [frame.stamp.pts_ns for frame in frames] == exact
    even = [round(i * exact[-1] / 7) for i in range(8)]
    assert even != exact  # guards the test: re-timing at a constant rate would be seen


def test_time_counts_from_the_start_of_the_stream(make_clip: Callable[..., Path]):
    clip = make_clip(
        "late.mkv", [counted(i) for i in range(5)], pts=[1000 + 40 * i for i in range(5)], time_base=Fraction(1, 1000)
    )
    frames, _ = read_all(clip)
    assert [frame.stamp.pts_ns for frame in frames] == [i * 40_000_000 for i in range(5)]


@pytest.mark.parametrize("threads", [1, 2])
def test_b_frames_come_in_presentation_order(make_clip: Callable[..., Path], threads: int):
    clip = make_clip("b.mp4", [counted(i) for i in range(60)], options={"bf": "3", "b_strategy": "0", "g": "20"})
    with av.open(str(clip)) as opened:
        packets = [p.pts for p in opened.demux(video=0) if p.size]
    assert packets != sorted(packets)  # guards the test: decoding order is another
    frames, _ = read_all(clip, threads=threads)
    assert numbers(frames) == list(range(60))


def test_frames_stop_where_asked(make_clip: Callable[..., Path]):
    clip = make_clip("a.mp4", [counted(i) for i in range(10)])
    frames, source = read_all(clip, frames=4)
    assert numbers(frames) == [0, 1, 2, 3]
    assert source.info.frames == 4
    assert source.warning is None


def test_a_closed_source_gives_nothing_more(make_clip: Callable[..., Path]):
    source = open_source(str(make_clip("a.mp4", [counted(i) for i in range(5)])))
    assert source.read() is not None
    source.close()
    source.close()
    assert source.read() is None
    assert source.warning is None


@pytest.mark.parametrize("kept", [0.5, 0.8])
def test_a_truncated_clip_gives_what_it_holds_and_says_so(make_clip: Callable[..., Path], kept: float):
    clip = make_clip("cut.mp4", hard_to_code(50), muxer_options={"movflags": "+faststart"}, options={"g": "10"})
    data = clip.read_bytes()
    clip.write_bytes(data[: int(len(data) * kept)])
    frames, source = read_all(clip)
    assert 10 < len(frames) < 50
    assert numbers(frames)[:10] == list(range(10))
    assert f"{len(frames)} frames decoded" in source.warning
    assert "50" in source.warning
    assert "\n" not in source.warning


def test_damage_in_the_middle_is_skipped(make_clip: Callable[..., Path]):
    clip = make_clip("hole.mp4", hard_to_code(50), options={"g": "10", "bf": "0"})
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20000] = bytes(20000)
    clip.write_bytes(data)
    frames, source = read_all(clip)
    found = numbers(frames)
    assert len(frames) >= 25
    assert "damaged" in source.warning
    assert found[:10] == list(range(10))
    assert found[-10:] == list(range(40, 50))
    times = [frame.stamp.pts_ns for frame in frames]
    assert times == sorted(set(times))


def test_a_change_of_size_within_a_stream_keeps_one_size(make_clip: Callable[..., Path]):
    small = make_clip("small.ts", [counted(i, 64, 48) for i in range(5)])
    large = make_clip("large.ts", [counted(i, 160, 120) for i in range(5, 10)])
    joined = small.with_name("joined.ts")
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    frames, _ = read_all(joined)
    assert {frame.rgb.shape for frame in frames} == {(48, 64, 3)}
    assert numbers(frames) == list(range(10))
    times = [frame.stamp.pts_ns for frame in frames]
    assert times == sorted(set(times))  # the second part's clock starts over


@pytest.mark.parametrize("gap_s", [0, 3600, -1])
def test_parts_that_were_joined_go_on_evenly_and_one_line_says_so(make_clip: Callable[..., Path], gap_s: int):
    options = {"bf": "2", "g": "10"}
    first = make_clip("first.ts", [counted(i) for i in range(25)], options=options)
    pts = [25 * gap_s + i for i in range(25)] if gap_s >= 0 else [125 + i for i in range(25)]
    second = make_clip("second.ts", [counted(25 + i) for i in range(25)], pts=pts, options=options)
    joined = first.with_name("joined.ts")
    parts = [first, second] if gap_s >= 0 else [second, first]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(joined)) as opened:
        told = [packet.dts for packet in opened.demux(video=0) if packet.size]
    assert max(abs(b - a) for a, b in pairwise(told)) > 80_000  # guards the test: the file's clock does jump
    frames, source = read_all(joined)
    assert sorted(numbers(frames)) == list(range(50))
    assert [frame.stamp.pts_ns for frame in frames] == [40_000_000 * i for i in range(50)]
    assert "jumps by" in source.warning and "at 1.0 s" in source.warning
    assert "damaged" not in source.warning and "\n" not in source.warning


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["turned.jpg", "turned.avi"])
def test_a_picture_is_shown_the_way_its_exif_says(make_clip: Callable[..., Path], name: str, orientation: int):
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:48, :64, 0] = picture[:48, 64:, 1] = picture[48:, :64, 2] = 255
    plain = make_clip("p.dat", [picture], "mjpeg", "yuvj420p", format="image2", muxer_options={"update": "1"})
    jpeg = plain.read_bytes()
    tagged = plain.with_name("turned.jpg")
    tagged.write_bytes(jpeg[:2] + exif(orientation, little=orientation % 2 == 0) + jpeg[2:])
    with Image.open(tagged) as opened:
        right = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).astype(int)
    if name.endswith("avi"):
        tagged = _remuxed(tagged, tagged.with_name(name))
    (frame,), source = read_all(tagged)
    assert frame.rgb.shape == right.shape == ((128, 96, 3) if orientation > 4 else (96, 128, 3))
    assert np.abs(frame.rgb.astype(int) - right).mean() < 4
    assert source.warning is None


def _remuxed(path: Path, into: Path) -> Path:
    with av.open(str(path)) as held, av.open(str(into), "w") as out:
        stream: Any = out.add_stream_from_template(held.streams.video[0])
        for packet in held.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return into


@pytest.mark.parametrize("name", ["tags.avi", "tags.mp4", "tags.mkv"])
def test_tags_in_another_alphabet_are_no_reason_not_to_read(make_clip: Callable[..., Path], name: str):
    clip = make_clip("plain." + name[-3:], [counted(i) for i in range(3)], "mpeg4")
    tagged = clip.with_name(name)
    with av.open(str(clip)) as held, av.open(str(tagged), "w", metadata_errors="surrogateescape") as out:
        out.metadata["title"] = b"M\xfcller".decode(errors="surrogateescape")
        stream: Any = out.add_stream_from_template(held.streams.video[0])
        for packet in held.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    assert b"M\xfcller" in tagged.read_bytes()
    with pytest.raises(UnicodeDecodeError):  # guards the test
        av.open(str(tagged))
    assert numbers(read_all(tagged)[0]) == [0, 1, 2]


@pytest.mark.parametrize("name", ["still.png", "still.jpg", "with:colon.png", "100%d.png"])
def test_a_picture_is_a_clip_of_one_frame(make_clip: Callable[..., Path], name: str):
    codec, pix_fmt = ("mjpeg", "yuvj420p") if name.endswith("jpg") else ("png", "rgb24")
    made = make_clip("made.dat", [counted(9)], codec, pix_fmt, format="image2", muxer_options={"update": "1"})
    made = made.rename(made.with_name(name))
    frames, source = read_all(made)
    assert numbers(frames) == [9]
    assert frames[0].stamp.pts_ns == 0
    assert source.info.frames in (None, 1)


def test_interlaced_video_is_read(make_clip: Callable[..., Path]):
    options = {"flags": "+ildct+ilme"}
    clip = make_clip("tv.ts", [counted(i, 64, 64) for i in range(6)], "mpeg2video", options=options)
    frames, _ = read_all(clip, size=(48, 32))
    assert numbers(frames) == list(range(6))


def test_probe_agrees_with_reading(make_clip: Callable[..., Path]):
    clip = make_clip(
        "a.mp4", [counted(i) for i in range(10)], rate=Fraction(30000, 1001), time_base=Fraction(1001, 30000)
    )
    info = probe(str(clip))
    assert (info.width, info.height, info.fps, info.frames) == (64, 48, Fraction(30000, 1001), 10)
    assert info.path == str(clip)
    assert not info.live
    assert probe(f"file://{clip}") == info


def _cover_only(path: Path, picture: Path) -> None:
    with av.open(str(path), "w") as out, av.open(str(picture)) as cover:
        sound: Any = out.add_stream("flac", rate=8000)
        sound.codec_context.layout = "mono"
        sound.codec_context.format = "s16"
        drawn: Any = out.add_stream_from_template(cover.streams.video[0])
        drawn.disposition = 1 << 10
        for packet in cover.demux(video=0):
            if packet.size:
                packet.stream = drawn
                out.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


def test_what_is_no_clip_is_refused_in_one_line(make_clip: Callable[..., Path], tmp_path: Path):
    text = tmp_path / "notes.mp4"
    text.write_text("this is not a video\n" * 100)
    plain = tmp_path / "notes.txt"
    plain.write_text("this is not a video\n" * 100)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    png = make_clip("c.dat", [counted(1)], "png", "rgb24", format="image2", muxer_options={"update": "1"})
    song = tmp_path / "song.flac"
    _cover_only(song, png)
    whole = make_clip("whole.mp4", [counted(i) for i in range(5)])
    headless = tmp_path / "headless.mp4"
    headless.write_bytes(whole.read_bytes()[:-300])  # the index is at the end
    told = {
        tmp_path / "missing.mp4": "no such file",
        tmp_path: "folder",
        text: "",
        plain: "",
        empty: "0 bytes",
        song: "no video stream",
        headless: "cut",
    }
    for path, words in told.items():
        with pytest.raises(SourceError) as raised:
            open_source(str(path))
        assert words in str(raised.value)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_clip_of_no_frames_is_refused(make_clip: Callable[..., Path]):
    clip = make_clip("a.mp4", hard_to_code(3))
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 4
    size = struct.unpack(">I", data[start - 8 : start - 4])[0]
    data[start : start + size - 8] = bytes(size - 8)
    clip.write_bytes(data)
    with pytest.raises(SourceError, match="not one frame"):
        open_source(str(clip))


def test_a_file_without_permission_is_refused(make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    clip = make_clip("a.mp4", [counted(0)])
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # to root everything is permitted
    with pytest.raises(SourceError, match="no permission"):
        open_source(str(clip))


def test_few_decoded_frames_are_held(make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    clip = make_clip("a.mp4", [counted(i) for i in range(100)])
    fed = 0
    plain = Demuxer.__iter__

    def counting(self: Demuxer) -> Any:
        nonlocal fed
        for packet in plain(self):
            fed += 1
            yield packet

    monkeypatch.setattr(Demuxer, "__iter__", counting)
    source = open_source(str(clip))
    ahead = [fed - given for given, _ in enumerate(iter(source.read, None), 1)]
    assert fed == 100
    assert max(ahead) < 16


@pytest.mark.parametrize(
    ("name", "count"),
    [("bigbuckbunny", 132), ("flower", 150), ("intel_cars", 125), ("tos_cuts", 324), ("tos_person_camera", 396)],
)
def test_real_clips_are_read_whole(name: str, count: int):
    clip = CLIPS / f"{name}.mp4"
    if not clip.exists():
        pytest.skip(f"{clip} is not on this machine")
    frames, source = read_all(clip, size=(64, 36))
    assert len(frames) == count == source.info.frames
    times = [frame.stamp.pts_ns for frame in frames]
    assert times == sorted(set(times))
    assert source.warning is None
