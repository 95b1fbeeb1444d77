"""Law: a recording has the sound of its source in step, whatever becomes of the connection, and says what it lacks."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from warpfuse.stages.frame import SoundPiece, Stamp
from warpfuse.stages.sinks import open_sink, wants_sound
from warpfuse.stages.sources.sound_packets import SoundPackets
from warpfuse.stages.stage import Hearing

from .conftest import INFO, SIZE, frames

LIVE = replace(INFO, live=True)
LATE_NS = 7_300_000_000
"""What the clock of the source is ahead of that of the frames."""


def heard(clip: Path, first: int = 0, shift_ns: int = 0) -> Iterator[SoundPiece]:
    """The sound of a clip as it comes from a live source, a piece a picture."""
    number = first
    with av.open(str(clip)) as opened:
        sound = SoundPackets(opened.streams.audio)
        for packet in opened.demux():
            if not sound.takes(packet) and (nut := sound.piece()):
                yield SoundPiece(Stamp(number, shift_ns), np.frombuffer(bytearray(nut), np.uint8))
                number += 1
        if nut := sound.piece():
            yield SoundPiece(Stamp(number, shift_ns), np.frombuffer(bytearray(nut), np.uint8))


def clicks(path: Path) -> list[float]:
    """Seconds at which clicks begin, by the time of each sample: unlike a player's sound it may have gaps."""
    times, loud = [], []
    with av.open(str(path)) as opened:
        resampler = av.AudioResampler(format="fltp", layout="mono")
        for frame in opened.decode(audio=0):
            for piece in resampler.resample(frame):
                times.append(piece.time + np.arange(piece.samples) / piece.sample_rate)
                loud.append(np.abs(piece.to_ndarray()[0]) > 0.3)
    at = np.concatenate(times)[np.concatenate(loud)]
    return [float(second) for second in at[np.concatenate([[True], np.diff(at) > 0.25])]] if len(at) else []


def described(clip: Path) -> bytes:
    with av.open(str(clip)) as opened:
        return SoundPackets(opened.streams.audio).description


def record(path: Path, description: bytes, pieces: list[SoundPiece], count: int, first_ns: int = 0) -> Any:
    """As many frames, a piece before each as long as there are any."""
    sink: Any = open_sink(str(path), replace(LIVE, sound=description), SIZE)
    waiting = iter(pieces)
    for frame in frames(count, [first_ns + i * 40_000_000 for i in range(count)]):
        if (piece := next(waiting, None)) is not None:
            sink.hear(piece)
        sink.write(frame)
    sink.close(True)
    return sink


@pytest.mark.parametrize(
    ("name", "codec", "ending", "into"),
    [
        ("a.mkv", "aac", ".mp4", "aac"),
        ("a.mkv", "aac", ".mkv", "aac"),
        ("a.ts", "aac", ".mp4", "aac"),
        ("a.ts", "aac", ".mov", "aac"),
        ("a.ts", "mp2", ".mkv", "mp2"),
        ("a.mkv", "libopus", ".webm", "opus"),
        ("a.mkv", "aac", ".webm", "opus"),
        ("a.mov", "pcm_alaw", ".mp4", "aac"),
        ("a.mov", "pcm_mulaw", ".mkv", "aac"),
    ],
)
def test_sound_is_where_its_pictures_are(
    make_sounding: Callable[..., Path], tmp_path: Path, name: str, codec: str, ending: str, into: str
):
    clip = make_sounding(name, codec)
    before = clicks(clip)
    pieces = [replace(p, stamp=replace(p.stamp, pts_ns=LATE_NS)) for p in heard(clip)]
    path = tmp_path / f"out{ending}"
    sink = record(path, described(clip), pieces, 100, first_ns=LATE_NS)
    assert isinstance(sink, Hearing) and wants_sound(str(path))
    assert clicks(path) == pytest.approx([at + LATE_NS / 1e9 for at in before], abs=0.03)
    with av.open(str(path)) as opened:
        assert opened.streams.audio[0].codec_context.name.removeprefix("lib") == into
    recoded = codec.startswith("pcm") or (codec, into) == ("aac", "opus")
    assert ["transcoded" in note for note in sink.notes] == [True] * recoded


def test_sound_goes_on_behind_a_new_connection_whose_clock_starts_anew(
    make_sounding: Callable[..., Path], tmp_path: Path
):
    """Two seconds, one of silence in between, two more from another connection."""
    clip = make_sounding("a.mkv", seconds=2)
    first = list(heard(clip))
    again = list(heard(clip, first=len(first), shift_ns=3_000_000_000))
    gap = [None] * (75 - len(first))
    sink: Any = open_sink(str(tmp_path / "a.mkv"), replace(LIVE, sound=described(clip)), SIZE)
    coming = iter([*first, *gap, *again])
    for frame in frames(125):
        if (piece := next(coming, None)) is not None:
            sink.hear(piece)
        sink.write(frame)
    sink.close(True)
    assert clicks(tmp_path / "a.mkv") == pytest.approx([0.5, 1.5, 3.5, 4.5], abs=0.03)
    assert sink.notes == []


def test_nothing_is_heard_before_the_first_picture_or_behind_the_last(
    make_sounding: Callable[..., Path], tmp_path: Path
):
    clip = make_sounding("a.mkv", seconds=4)
    sink: Any = open_sink(str(tmp_path / "a.mkv"), replace(LIVE, sound=described(clip)), SIZE)
    for piece in heard(clip):
        sink.hear(piece)
    for frame in frames(50, [1_000_000_000 + i * 40_000_000 for i in range(50)]):
        sink.write(frame)
    sink.close(True)
    assert clicks(tmp_path / "a.mkv") == pytest.approx([1.5, 2.5], abs=0.03)
    with av.open(str(tmp_path / "a.mkv")) as opened:
        sound = opened.streams.audio[0]
        times = [packet.pts * sound.time_base for packet in opened.demux(sound) if packet.size]
    assert min(times) >= 1 and max(times) < 3


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("before, then", [(0, 400_000_000), (400_000_000, 0), (0, -400_000_000)])
def test_a_delay_that_changes_moves_the_sound_from_there_on(
    make_sounding: Callable[..., Path], tmp_path: Path, ending: str, before: int, then: int
):
    """The clicks of the first two seconds are later by `before`, the others by `then`; nothing is heard twice."""
    clip = make_sounding("a.mkv")
    pieces = list(heard(clip))
    half = len(pieces) // 2
    pieces = [
        replace(piece, stamp=replace(piece.stamp, pts_ns=before if number < half else then))
        for number, piece in enumerate(pieces)
    ]
    path = tmp_path / f"out{ending}"
    sink = record(path, described(clip), pieces, 115)
    at = clicks(clip)
    expected = [second + (before if second < 2 else then) / 1e9 for second in at]
    assert clicks(path) == pytest.approx(expected, abs=0.03)
    assert not any("lost" in note or "damaged" in note for note in sink.notes)
    with av.open(str(path)) as opened:
        times = [packet.pts for packet in opened.demux(audio=0) if packet.size]
    assert times == sorted(times)


def test_lost_pieces_are_counted_and_the_rest_keeps_its_place(make_sounding: Callable[..., Path], tmp_path: Path):
    clip = make_sounding("a.mkv", seconds=4)
    pieces = list(heard(clip))
    gone = [piece for piece in pieces if not 30 <= piece.stamp.seq < 45]
    sink = record(tmp_path / "a.mkv", described(clip), gone, 100)
    assert ["15 pieces of it" in note for note in sink.notes] == [True]
    assert clicks(tmp_path / "a.mkv")[-2:] == pytest.approx([2.5, 3.5], abs=0.03)


@pytest.mark.parametrize("trouble", ["another coding", "damage", "no piece at all"])
def test_trouble_with_the_sound_never_stops_the_picture(
    make_sounding: Callable[..., Path], tmp_path: Path, trouble: str
):
    clip = make_sounding("clip.mkv", seconds=2)
    pieces, description = list(heard(clip)), described(clip)
    if trouble == "another coding":
        pieces += list(heard(make_sounding("b.mkv", "aac", seconds=2, rate=44100), len(pieces), 2_000_000_000))
    elif trouble == "damage":
        torn = np.random.default_rng(0).integers(0, 256, 500, np.uint8)
        pieces = [replace(p, nut=torn) if p.stamp.seq == 20 else p for p in pieces]
    else:
        pieces = []
    sink = record(tmp_path / "a.mkv", description, pieces, 100)
    with av.open(str(tmp_path / "a.mkv")) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 100
    told = {"another coding": "codes the sound otherwise", "damage": "piece of the sound was damaged"}
    assert [told[trouble] in note for note in sink.notes] == [True] if trouble in told else sink.notes == []
    if pieces:
        assert clicks(tmp_path / "a.mkv")[-1] == pytest.approx(1.5, abs=0.03)


def test_a_source_without_sound_makes_a_file_without_a_track(tmp_path: Path):
    record(tmp_path / "a.mp4", b"", [], 5)
    with av.open(str(tmp_path / "a.mp4")) as opened:
        assert len(opened.streams) == 1


def test_what_cannot_be_described_is_left_out(make_sounding: Callable[..., Path]):
    clip = make_sounding("mute.mp4", tracks=0)
    assert described(clip) == b"" and list(heard(clip)) == []


def test_times_are_exact_on_the_way(make_sounding: Callable[..., Path]):
    clip = make_sounding("a.ts")
    with av.open(str(clip)) as opened:
        stored = [Fraction(p.pts) * p.time_base for p in opened.demux(opened.streams.audio[0]) if p.size]
    passed = []
    for piece in heard(clip):
        with av.open(io.BytesIO(piece.nut.tobytes()), format="nut") as opened:
            passed += [Fraction(p.pts) * p.time_base for p in opened.demux() if p.size]
    assert len(passed) == len(stored)
    assert max(abs(a - b) for a, b in zip(passed, stored, strict=True)) < Fraction(1, 40_000)
