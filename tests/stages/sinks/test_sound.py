"""Law: sound is copied packet by packet, keeps its place beside the picture, ends with it, and never stops it."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source
from warpfuse.stages.stage import VideoInfo

from .conftest import INFO, SIZE, clicks, frames, packets


def restyle(clip: Path, path: Path, count: int | None = None, sound: Path | None = None) -> Any:
    """What a run does: frames of `clip` to `path`, with its sound."""
    source = open_source(str(clip), frames=count)
    sink = open_sink(str(path), source.info, SIZE, sound_from=str(sound or clip))
    for frame in iter(source.read, None):
        sink.write(frame)
    source.close()
    sink.close(True)
    return sink


def picture_start(path: Path) -> float:
    with av.open(str(path)) as opened:
        return float(next(opened.decode(video=0)).time)


COPIES = [
    ("a.mp4", "aac", ".mp4"),
    ("a.mp4", "aac", ".mov"),
    ("a.mp4", "aac", ".mkv"),
    ("a.mkv", "libmp3lame", ".mp4"),
    ("a.mkv", "ac3", ".mp4"),
    ("a.mkv", "flac", ".mkv"),
    ("a.mkv", "libopus", ".mp4"),
    ("a.mkv", "libopus", ".webm"),
    ("a.mkv", "libvorbis", ".mkv"),
    ("a.ts", "aac", ".mp4"),
    ("a.ts", "mp2", ".mkv"),
    ("a.avi", "libmp3lame", ".mp4"),
    ("a.mov", "pcm_s16le", ".mov"),
]


@pytest.mark.parametrize(("name", "codec", "ending"), COPIES)
def test_sound_is_copied_not_coded_again(
    make_sounding: Callable[..., Path], tmp_path: Path, name: str, codec: str, ending: str
):
    clip = make_sounding(name, codec)
    out = tmp_path / f"out{ending}"
    sink = restyle(clip, out)
    assert sink.notes == []
    stored, copied = packets(clip), packets(out)
    if name.endswith(".ts") and codec == "aac":
        stored = [packet[7:] for packet in stored]  # the frame headers of a transport stream have no place in a file
    if codec == "pcm_s16le":
        stored, copied = [b"".join(stored)], [b"".join(copied)]
        assert stored[0].startswith(copied[0][: len(stored[0]) * 9 // 10])
        return
    run_up = [n for n in range(3) if stored[n : n + len(copied)] == copied]  # what lies before the picture may go
    assert run_up
    assert len(stored) - run_up[0] - len(copied) <= 4


@pytest.mark.parametrize(("name", "codec", "ending"), COPIES)
def test_sound_keeps_its_place(make_sounding: Callable[..., Path], tmp_path: Path, name: str, codec: str, ending: str):
    clip = make_sounding(name, codec)
    out = tmp_path / f"out{ending}"
    restyle(clip, out)
    before = [at - picture_start(clip) for at in clicks(clip)]
    after = [at - picture_start(out) for at in clicks(out)]
    assert len(before) == 4
    assert after == pytest.approx(before, abs=0.003)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize(("picture_at", "sound_at"), [(0.0, 0.32), (0.4, 0.0), (0.2, 1.0)])
def test_an_offset_between_sound_and_picture_survives(
    make_sounding: Callable[..., Path], tmp_path: Path, ending: str, picture_at: float, sound_at: float
):
    clip = make_sounding("offset.mp4", picture_at=picture_at, sound_at=sound_at)
    out = tmp_path / f"out{ending}"
    restyle(clip, out)
    after = [at - picture_start(out) for at in clicks(out)]
    there = [second + 0.5 + sound_at - picture_at for second in range(4)]
    assert after == pytest.approx([at for at in there if 0 <= at < 4], abs=0.005)
    assert [second + 0.5 for second in range(len(after))] != pytest.approx(after, abs=0.1)  # guards the test


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_sound_ends_with_the_picture(make_sounding: Callable[..., Path], tmp_path: Path, ending: str):
    clip = make_sounding("long.mp4", seconds=4)
    out = tmp_path / f"out{ending}"
    restyle(clip, out, count=50)
    with av.open(str(out)) as opened:
        assert opened.duration == pytest.approx(2_000_000, abs=30_000)
    assert len(clicks(out)) == 2


@pytest.mark.parametrize(
    ("name", "codec", "ending", "into"),
    [
        ("a.mp4", "aac", ".webm", "opus"),
        ("a.wmv", "wmav2", ".mp4", "aac"),
        ("a.mkv", "libopus", ".mov", "aac"),
        ("a.mov", "pcm_s16le", ".webm", "opus"),
    ],
)
def test_what_a_container_cannot_hold_is_transcoded_and_said(
    make_sounding: Callable[..., Path], tmp_path: Path, name: str, codec: str, ending: str, into: str
):
    clip = make_sounding(name, codec)
    out = tmp_path / f"out{ending}"
    sink = restyle(clip, out)
    assert len(sink.notes) == 1
    assert "transcoded" in sink.notes[0]
    with av.open(str(out)) as opened:
        assert opened.streams.audio[0].codec_context.name.removeprefix("lib") == into
    before = [at - picture_start(clip) for at in clicks(clip)]
    assert [at - picture_start(out) for at in clicks(out)] == pytest.approx(before, abs=0.03)


def test_all_tracks_come_with_their_languages(make_sounding: Callable[..., Path], tmp_path: Path):
    clip = make_sounding("three.mkv", tracks=3)
    out = tmp_path / "out.mp4"
    restyle(clip, out)
    with av.open(str(out)) as opened:
        assert [stream.metadata["language"] for stream in opened.streams.audio] == ["eng", "deu", "fra"]
    for track in range(3):
        assert len(clicks(out, track)) == 4


def test_the_track_is_read_only_as_far_as_the_picture(make_sounding: Callable[..., Path], tmp_path: Path):
    clip = make_sounding("a.mkv", seconds=8)
    source = open_source(str(clip))
    sink: Any = open_sink(str(tmp_path / "out.mkv"), source.info, SIZE, sound_from=str(clip))
    reader = sink._sound
    for number in range(100):
        frame = source.read()
        assert frame is not None
        sink.write(frame)
        assert reader._start(reader._waiting) < Fraction(number + 1, 25) + Fraction(1, 10)
    sink.close(False)
    source.close()


def test_a_song_can_be_laid_under_a_picture(make_sounding: Callable[..., Path], tmp_path: Path):
    song = make_sounding("song.m4a", picture=False)
    sink = open_sink(str(tmp_path / "out.mp4"), INFO, SIZE, sound_from=str(song))
    for frame in frames(50):
        sink.write(frame)
    sink.close(True)
    assert clicks(tmp_path / "out.mp4") == pytest.approx([0.5, 1.5], abs=0.03)


@pytest.mark.parametrize("trouble", ["missing", "not a clip", "damaged", "cut"])
def test_trouble_with_the_sound_never_stops_the_picture(
    make_sounding: Callable[..., Path], tmp_path: Path, trouble: str
):
    clip = make_sounding("a.mkv")
    data = bytearray(clip.read_bytes())
    if trouble == "missing":
        clip.unlink()
    elif trouble == "not a clip":
        clip.write_text("no clip")
    elif trouble == "damaged":
        data[len(data) // 2 : len(data) // 2 + 6000] = bytes(6000)
        clip.write_bytes(data)
    else:
        clip.write_bytes(data[: len(data) // 2])
    out = tmp_path / "out.mp4"
    sink: Any = open_sink(str(out), INFO, SIZE, sound_from=str(clip))
    for frame in frames(100):
        sink.write(frame)
    sink.close(True)
    with av.open(str(out)) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 100
    if trouble in ("missing", "not a clip"):
        assert len(sink.notes) == 1
        assert "no sound" in sink.notes[0]


def test_silence_in_the_source_is_no_trouble(make_sounding: Callable[..., Path], tmp_path: Path):
    clip = make_sounding("mute.mp4", tracks=0)
    sink = restyle(clip, tmp_path / "out.mp4")
    assert sink.notes == []


@pytest.mark.parametrize(("gap_s", "codec"), [(0, "aac"), (3600, "aac"), (0, "mp2")])
@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm"])
def test_sound_stays_with_the_picture_across_a_joint(
    make_sounding: Callable[..., Path], tmp_path: Path, gap_s: int, codec: str, ending: str
):
    first = make_sounding("first.ts", codec)
    second = make_sounding("second.ts", codec, picture_at=gap_s, sound_at=gap_s)
    joined = first.with_name("joined.ts")
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    out = tmp_path / f"out{ending}"
    sink = restyle(joined, out)
    assert not [note for note in sink.notes if "transcoded" not in note]
    with av.open(str(out)) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 200
    found = [at - picture_start(out) for at in clicks(out)]
    start = clicks(first)[0] - picture_start(first)
    assert found == pytest.approx([start + second for second in range(8)], abs=0.04)  # a frame


@pytest.mark.parametrize(("name", "codec", "ending"), [("a.mkv", "libopus", ".mp4"), ("a.mkv", "flac", ".mov")])
def test_sound_whose_head_is_damaged_does_not_cost_the_picture(
    make_sounding: Callable[..., Path], tmp_path: Path, name: str, codec: str, ending: str
):
    clip = make_sounding(name, codec)
    data = clip.read_bytes()
    private = b"\x63\xa2"  # Matroska's CodecPrivate, the last of which is the sound's
    at = data.rindex(private, 0, data.index(b"\x1f\x43\xb6\x75"))
    clip.write_bytes(data[:at] + b"\x63\xa3" + data[at + 2 :])
    out = tmp_path / f"out{ending}"
    restyle(clip, out)
    with av.open(str(out)) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 100


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("rate", [Fraction(5, 13), Fraction(1, 600)])
def test_pictures_seconds_apart_are_written(tmp_path: Path, ending: str, rate: Fraction):
    info = VideoInfo(*SIZE, rate, 1 / rate)
    sink = open_sink(str(tmp_path / f"out{ending}"), info, SIZE)
    for frame in frames(4, pts_ns=[round(number / rate * 10**9) for number in range(4)]):
        sink.write(frame)
    sink.close(True)
    with av.open(str(tmp_path / f"out{ending}")) as opened:
        times = [float(frame.time) for frame in opened.decode(video=0)]
    assert times == pytest.approx([float(number / rate) for number in range(4)], abs=0.001)
