"""Law: a published stream has the sound of its live source in step with the pictures, which never wait for it."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.peers import peer, pictures

from warpfuse.doctor import burnt_code
from warpfuse.stages.frame import RawFrame, SoundPiece, Stamp
from warpfuse.stages.sinks import open_sink, wants_sound
from warpfuse.stages.sinks.address import StreamSettings
from warpfuse.stages.sinks.live_encoder import LiveEncoder
from warpfuse.stages.sinks.stream_sound import RATE, SoundBuffer, StreamSound
from warpfuse.stages.stage import Hearing, VideoInfo

from .conftest import SIZE
from .test_live_sound import clicks, described, heard

FPS = 25
PERIOD_NS = 10**9 // FPS
STEP = 0.03
"""Longest error of a time, s: shorter than a picture."""


class Pipe:
    """Keeps what an encoder writes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def encoded(
    folder: Path,
    pieces: dict[int, list[SoundPiece]],
    description: bytes,
    count: int,
    first_ns: int = 0,
    shown: Callable[[int], bool] = lambda number: True,
) -> tuple[Path, StreamSound]:
    """A stream of flat pictures, with the pieces of sound before the picture of their number."""
    sound = StreamSound(description, [])
    pipe = Pipe()
    encoder = LiveEncoder(pipe, SIZE, Fraction(FPS), StreamSettings(), sound.buffer)
    grey = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    for number in range(count):
        for piece in pieces.get(number, ()):
            sound.hear(piece)
        if shown(number):
            encoder.write(grey, number * PERIOD_NS, number == 0, first_ns + number * PERIOD_NS)
    encoder.close()
    path = folder / "stream.nut"
    path.write_bytes(pipe.data)
    return path, sound


def one_a_picture(pieces: Iterator[SoundPiece], late: int = 0) -> dict[int, list[SoundPiece]]:
    return {number + late: [piece] for number, piece in enumerate(pieces)}


def moved(pieces: Iterator[SoundPiece], by_ns: int) -> Iterator[SoundPiece]:
    return (replace(piece, stamp=replace(piece.stamp, pts_ns=by_ns)) for piece in pieces)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mkv", "aac", 48000), ("a.ts", "mp2", 44100), ("a.mov", "pcm_alaw", 8000), ("a.mkv", "libopus", 48000)],
)
@pytest.mark.parametrize("late", [0, 20, -4])
def test_sound_is_where_its_pictures_are(
    make_sounding: Callable[..., Path], tmp_path: Path, name: str, codec: str, rate: int, late: int
) -> None:
    """It comes with its picture, most of a second after it, or before it, as where networks take time."""
    clip = make_sounding(name, codec, rate=rate)
    clock_ns = 7_300_000_000
    pieces = {max(0, number): [] for number in range(late, 130)}
    for number, piece in enumerate(moved(heard(clip), clock_ns)):
        pieces[max(0, number + late)].append(piece)
    path, _ = encoded(tmp_path, pieces, described(clip), 125, clock_ns)
    expected = clicks(clip)
    assert clicks(path) == pytest.approx(expected if late <= 0 else expected[-len(clicks(path)) :], abs=STEP)
    assert len(clicks(path)) >= len(expected) - (late > 0), "only what comes first, and later than expected, is lost"


@pytest.mark.parametrize("delay_ns", [500_000_000, -700_000_000])
def test_a_delay_moves_it(make_sounding: Callable[..., Path], tmp_path: Path, delay_ns: int) -> None:
    clip = make_sounding("a.mkv")
    path, _ = encoded(tmp_path, one_a_picture(moved(heard(clip), delay_ns)), described(clip), 150)
    expected = [second + delay_ns / 1e9 for second in clicks(clip)]
    assert clicks(path) == pytest.approx([second for second in expected if second > 0][-len(clicks(path)) :], abs=STEP)
    assert len(clicks(path)) >= 3


def test_a_small_delay_is_kept_too(make_sounding: Callable[..., Path], tmp_path: Path) -> None:
    """One step of the slider on the page, after two seconds without."""
    clip = make_sounding("a.mkv")
    pieces = [replace(p, stamp=replace(p.stamp, pts_ns=20_000_000 * (n >= 50))) for n, p in enumerate(heard(clip))]
    path, _ = encoded(tmp_path, one_a_picture(iter(pieces)), described(clip), 125)
    first, _, third, _ = (got - put for got, put in zip(clicks(path), clicks(clip), strict=True))
    assert third - first == pytest.approx(0.02, abs=0.004)


def test_another_connection_may_code_it_otherwise(make_sounding: Callable[..., Path], tmp_path: Path) -> None:
    clip = make_sounding("a.mkv", seconds=2)
    other = make_sounding("b.ts", "mp2", seconds=2, rate=44100)
    pieces = one_a_picture(heard(clip))
    for number, piece in enumerate(moved(heard(other), 3 * 10**9)):
        pieces[75 + number] = [piece]
    path, sound = encoded(tmp_path, pieces, described(clip), 140)
    assert clicks(path)[:2] == pytest.approx(clicks(clip), abs=STEP)
    assert clicks(path)[2:] == pytest.approx([3 + second for second in clicks(other)], abs=STEP)
    sound.close()


@pytest.mark.parametrize("trouble", ["none comes", "damage", "late begin", "early end"])
def test_pictures_never_wait_for_sound(make_sounding: Callable[..., Path], tmp_path: Path, trouble: str) -> None:
    """After each `write` at most one picture is kept back, and the sound is at most 0.6 s behind, silent or not."""
    clip = make_sounding("a.mkv")
    pieces = list(heard(clip))
    torn = np.random.default_rng(0).integers(0, 256, 500, np.uint8)
    given = {
        "none comes": {},
        "damage": {n: [replace(p, nut=torn) if n % 3 else p] for n, p in enumerate(pieces)},
        "late begin": {n: [p] for n, p in enumerate(pieces) if n >= 50},
        "early end": {n: [p] for n, p in enumerate(pieces) if n < 50},
    }[trouble]
    sound = StreamSound(described(clip), [])
    pipe = Pipe()
    encoder = LiveEncoder(pipe, SIZE, Fraction(FPS), StreamSettings(), sound.buffer)
    noise = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    for number in range(100):
        for piece in given.get(number, ()):
            sound.hear(piece)
        encoder.write(noise, number * PERIOD_NS, number == 0, number * PERIOD_NS)
        if number % 10 == 9:
            seen, end = sent(pipe)
            assert seen >= number
            assert end >= number / FPS - 0.6
    encoder.close()
    assert sent(pipe)[0] == 100
    assert len(sound_times(pipe)) == len(set(sound_times(pipe)))


def sent(pipe: Pipe) -> tuple[int, float]:
    """How many pictures, and until when there is sound, s."""
    with av.open(io.BytesIO(pipe.data), format="nut") as opened:
        packets = [packet for packet in opened.demux() if packet.size]
    return sum(p.stream_index == 0 for p in packets), float(max(p.pts * p.time_base for p in packets if p.stream_index))


def sound_times(pipe: Pipe) -> list[int]:
    with av.open(io.BytesIO(pipe.data), format="nut") as opened:
        return [packet.pts for packet in opened.demux(audio=0) if packet.size]


def test_a_picture_leaves_at_once_where_its_sound_has_come(make_sounding: Callable[..., Path]) -> None:
    """As it has where the networks take a tenth of a second."""
    clip = make_sounding("a.mkv")
    sound = StreamSound(described(clip), [])
    for piece in heard(clip):
        sound.hear(piece)
    pipe = Pipe()
    encoder = LiveEncoder(pipe, SIZE, Fraction(FPS), StreamSettings(), sound.buffer)
    for number in range(50):
        encoder.write(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), number * PERIOD_NS, number == 0, number * PERIOD_NS)
        assert sent(pipe)[0] == number + 1
    encoder.close()


def test_after_a_long_pause_the_sound_of_that_time_is_not_sent(
    make_sounding: Callable[..., Path], tmp_path: Path
) -> None:
    clip = make_sounding("a.mkv", seconds=2)
    shown = [*range(25), *range(25 + 3600 * FPS, 50 + 3600 * FPS)]
    path, _ = encoded(
        tmp_path, one_a_picture(heard(clip)), described(clip), 50 + 3600 * FPS, shown=lambda number: number in shown
    )
    assert path.stat().st_size < 200_000
    assert clicks(path) == pytest.approx(clicks(clip)[:1], abs=STEP)


def test_the_buffer_keeps_the_last_seconds_only() -> None:
    buffer = SoundBuffer(2)
    ones = np.ones((2, RATE), np.float32)
    for second in range(40):
        buffer.put(second * RATE, ones * (second + 1) / 64)
    assert buffer.end == 40 * RATE
    assert not buffer.read(20 * RATE, RATE).any()
    assert (buffer.read(30 * RATE, RATE) == 31 / 64).all()
    buffer.put(45 * RATE, ones * 46 / 64)
    assert not buffer.read(41 * RATE, 3 * RATE).any(), "a gap is silent, not what was there a round ago"
    assert (buffer.read(45 * RATE, RATE) == 46 / 64).all()
    assert not buffer.read(46 * RATE, RATE).any()
    buffer.put(10**12, ones)
    assert buffer.end == 10**12 + RATE
    buffer.put(47 * RATE, ones)
    assert buffer.end == 48 * RATE, "one wrong time does not silence all that follows"
    assert (buffer.read(46 * RATE, 3 * RATE) == np.repeat([0, 1, 0], RATE)).all()


def test_samples_that_would_break_an_encoder_do_not_reach_it() -> None:
    buffer = SoundBuffer(1)
    buffer.put(0, np.array([[0.5, np.nan, np.inf, -np.inf, 1e30]], np.float32))
    assert buffer.read(0, 5).tolist() == [[0.5, 0.0, 1.0, -1.0, 1.0]]


def test_of_several_tracks_the_first_is_sent_and_the_notes_say_so(make_sounding: Callable[..., Path]) -> None:
    notes: list[str] = []
    with_two = make_sounding("a.mkv", tracks=2)
    StreamSound(described(with_two), notes).close()
    assert notes == ["the first sound track is sent, not the other 1"]


@pytest.mark.parametrize("scheme", ["rtmp", "srt", "rtsp"])
def test_a_peer_hears_it_with_its_pictures(make_sounding: Callable[..., Path], tmp_path: Path, scheme: str) -> None:
    """That of RTMP dies once, and gets both again when it is back."""
    size = (320, 180)
    clip = make_sounding("a.mkv", seconds=30)
    info = VideoInfo(*size, Fraction(FPS), Fraction(1, FPS), sound=described(clip))
    pieces = list(heard(clip))
    with peer(scheme, tmp_path, sound=True) as server:
        sink: Any = open_sink(server.url, info, size)
        assert isinstance(sink, Hearing)
        assert wants_sound(server.url)
        live = {0: 0, 1: 0, 2: 0}
        dies = scheme == "rtmp"
        try:
            for shown, piece in enumerate(pieces):
                sink.hear(piece)
                rgb = np.full((size[1], size[0], 3), 128, np.uint8)
                burnt_code.burn(rgb, shown)
                sink.write(RawFrame(Stamp(shown, shown * PERIOD_NS), rgb))
                live[sink.publisher.connections] += sink.publisher.state == "LIVE"
                if dies and live[1] == FPS:
                    server.kill()
                    server.start()
                    dies = False
                if live[1 + (scheme == "rtmp")] == 3 * FPS:
                    break
            sink.close(True)
        finally:
            sink.close(False)
        server.finish()
    assert sink.publisher.reconnects == (scheme == "rtmp")
    shown_at = {burnt_code.read(rgb): seconds for seconds, _, rgb in pictures(server.received)}
    told = clicks(server.received)
    assert told
    if scheme != "rtsp":  # its server stamps pictures and sound anew, each by its arrival

        def met(at: float, off: float) -> bool:
            return any(abs(at + off - put) < STEP for put in expected_near(at, shown_at))

        assert all(met(at, 0) for at in told), (told, shown_at)
        assert not all(met(at, 0.25) for at in told), "control"


def expected_near(at: float, shown_at: dict[int | None, float]) -> list[float]:
    """Where clicks are expected by the pictures around a time. Pictures that come half a second late, as on a busy
    machine, begin the clock of a stream anew, and its sound with it."""
    known = [(seconds, seconds - number / FPS) for number, seconds in shown_at.items() if number is not None]
    before = [begin for seconds, begin in known if seconds <= at][-1:]
    began = {*before, *(begin for seconds, begin in known if at < seconds or at - seconds < 1)}
    return [0.5 + second + begin for second in range(30) for begin in began]


@pytest.mark.parametrize(("setting", "sent"), [("", True), ("#sound=off", False)])
def test_sound_that_is_not_wanted_is_left_out_and_said(
    make_sounding: Callable[..., Path], setting: str, sent: bool
) -> None:
    info = VideoInfo(*SIZE, Fraction(FPS), Fraction(1, FPS), live=True, sound=described(make_sounding("a.mkv")))
    sink: Any = open_sink(f"rtmp://127.0.0.1:1/live{setting}", info, SIZE)
    sink.close(False)
    assert any("the picture alone is sent, not the sound" in note for note in sink.notes) == (not sent)


def test_without_sound_there_is_no_track(make_sounding: Callable[..., Path]) -> None:
    pipe = Pipe()
    encoder = LiveEncoder(pipe, SIZE, Fraction(FPS), StreamSettings())
    encoder.write(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), 0, True)
    encoder.close()
    with av.open(io.BytesIO(pipe.data), format="nut") as opened:
        assert [stream.type for stream in opened.streams] == ["video"]
