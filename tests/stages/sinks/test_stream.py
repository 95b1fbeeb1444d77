from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from support.peers import free_port, peer, pictures

from warpfuse.doctor import burnt_code
from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.stage import VideoInfo

SIZE = (640, 360)
FPS = 30
INFO = VideoInfo(*SIZE, Fraction(FPS), Fraction(1, FPS))
COLOURS = np.array([(200, 40, 40), (40, 180, 60), (50, 60, 200), (220, 220, 60), (128, 128, 128), (240, 240, 240)])
WAIT = 30.0


def picture(number: int) -> RawFrame:
    """Six flat colours side by side below a burnt-in number."""
    rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    rgb[:] = np.repeat(COLOURS, -(-SIZE[0] // 6), 0)[: SIZE[0]]
    burnt_code.burn(rgb, number)
    return RawFrame(Stamp(number, number * 10**9 // FPS), rgb)


@contextmanager
def publishing(url: str) -> Iterator[Any]:
    sink = open_sink(url, INFO, SIZE)
    try:
        yield sink
    finally:
        sink.close(False)
        assert not sink.publisher.is_alive()
        assert not [child for child in psutil.Process().children() if "remux.py" in " ".join(child.cmdline())]


def write_until(sink: Any, numbers: Iterator[int], *states: str) -> None:
    """Frames at their rate until the publisher is in one of the states."""
    for number in numbers:
        if sink.publisher.state in states:
            return
        assert number < WAIT * FPS, f"still {sink.publisher.state}, not {states}"
        sink.write(picture(number))


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "srt"])
def test_a_peer_sees_what_was_sent(scheme: str, tmp_path: Path) -> None:
    with peer(scheme, tmp_path) as server, publishing(server.url) as sink:
        numbers = count()
        write_until(sink, numbers, "LIVE")
        first = next(numbers)
        for number in range(first, first + 75):  # an SRT listener throws away the last few when its caller leaves
            sink.write(picture(number))
        sink.close(True)
        server.finish()
        with av.open(str(server.received)) as opened:
            assert [stream.type for stream in opened.streams] == ["video"]  # the source had no sound
        seen = {}
        for seconds, frame, rgb in pictures(server.received):
            number = burnt_code.read(rgb)
            assert number is not None
            assert number not in seen
            seen[number] = seconds
            shown = rgb[200:340].reshape(140, SIZE[0], 3)
            centres = shown[:, 53::107].mean(0)[:6]
            np.testing.assert_allclose(centres, COLOURS, atol=6)
            assert (frame.colorspace, frame.color_range) == (1, 1)
    missing = set(range(first, first + 60)) - set(seen)
    assert len(missing) <= sink.dropped
    assert list(seen) == sorted(seen)
    if scheme != "rtsp":  # this RTSP server stamps anew what it receives, by its own clock
        late = [seen[number] - number / FPS for number in seen if number >= first]
        assert max(late) - min(late) < 0.002  # no drift and no jitter, times are the source's


def test_a_wrong_password_ends_it_without_being_told(tmp_path: Path) -> None:
    with peer("rtsp", tmp_path, login="anna:opensesame") as server:
        url = server.url.replace("//", "//anna:hunter22@")
        with publishing(url) as sink, pytest.raises(SinkLost, match=r"refused: .*401 Unauthorized") as caught:
            write_until(sink, count(), "LIVE")
        assert "hunter22" not in str(caught.value)
        assert "anna" not in str(caught.value)


def test_the_right_password_is_taken_as_it_is_typed(tmp_path: Path) -> None:
    password = "open#se/sa?m[e@1%"
    with (
        peer("rtsp", tmp_path, login=f"anna:{password}") as server,
        publishing(server.url.replace("//", f"//anna:{password}@") + "#gop=0.5") as sink,
    ):
        write_until(sink, count(), "LIVE", "LOST")
        assert sink.publisher.state == "LIVE"


def test_a_wrong_srt_passphrase_ends_it_without_being_told(tmp_path: Path) -> None:
    with peer("srt", tmp_path, query="?passphrase=opensesame") as server:
        url = server.url.replace("opensesame", "hunter2222")
        with publishing(url) as sink, pytest.raises(SinkLost, match="refused: Incorrect passphrase") as caught:
            write_until(sink, count(), "LIVE")
        assert "hunter2222" not in str(caught.value)


def test_a_server_that_dies_and_returns_is_published_to_again(tmp_path: Path) -> None:
    with peer("rtsp", tmp_path) as server, publishing(server.url) as sink:
        numbers = count()
        write_until(sink, numbers, "LIVE")
        server.kill()
        write_until(sink, numbers, "RECONNECTING")
        server.start()
        write_until(sink, numbers, "LIVE")
        assert sink.publisher.reconnects == 1
        assert sink.dropped > 0


def test_a_frozen_server_is_let_go_and_holds_up_nobody(tmp_path: Path) -> None:
    with peer("rtsp", tmp_path) as server, publishing(f"{server.url}#stall=0.5,kbps=40000,gop=0.1") as sink:
        beside = open_sink("null:", INFO, SIZE)
        numbers = count()
        write_until(sink, numbers, "LIVE")
        server.freeze()
        noise = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
        written = 0
        while sink.publisher.state == "LIVE":  # until buffers of the kernel are full as well
            frame = RawFrame(picture(next(numbers)).stamp, noise)
            sink.write(frame)
            beside.write(frame)
            written += 1
            assert written < WAIT * FPS
        assert sink.publisher.state == "RECONNECTING"
        assert beside.frames == written
        server.thaw()
        write_until(sink, numbers, "LIVE")


def test_nobody_there_is_said_once_the_patience_ends() -> None:
    said = pytest.raises(SinkLost, match="no connection within 1 s: Connection refused")
    with publishing(f"rtsp://127.0.0.1:{free_port()}/live#patience=1") as sink, said:
        write_until(sink, count(), "LIVE")


def test_srt_without_ffmpeg_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SinkError, match="apt install ffmpeg"):
        check("srt://127.0.0.1:9000")


@pytest.mark.parametrize("odd", [(641, 360), (640, 359)])
def test_odd_sizes_are_refused(odd: tuple[int, int]) -> None:
    with pytest.raises(SinkError, match=r"Try 640x358|Try 640x360"):
        open_sink("rtsp://127.0.0.1:1/live", INFO, odd)


def test_an_encoder_asked_for_by_name_is_used_or_an_error() -> None:
    from warpfuse.stages.sinks.live_encoder import codec_for

    if codec_for("auto") == "h264_nvenc":
        pytest.skip("this machine has NVENC")
    with pytest.raises(SinkError, match=r"h264_nvenc.*NVIDIA"):
        check("rtsp://127.0.0.1:1/live#codec=h264_nvenc")
