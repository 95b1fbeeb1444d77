"""RTMP and SRT from a real sender."""

import socket

import numpy as np
import pytest
from support import servers

from warpfuse.stages.errors import SourceError, SourceLost
from warpfuse.stages.sources import open_source, srt
from warpfuse.stages.sources.connection import Patience

HASTY = Patience(first=10.0, stall=0.5, silence=2.0, least=0.05, most=0.2, total=60.0)


def shows(frame, colour):
    return np.abs(frame.rgb.reshape(-1, 3).mean(0) - servers.COLOURS[colour]).max() < 12


def reconnected(source, colour):
    """Frames are read until the sender's other picture has come."""
    for _ in range(400):
        frame = source.read()
        assert frame is not None, source.lost
        if shows(frame, colour):
            return frame
    raise AssertionError(source.report())


def test_rtmp_is_received_and_comes_back_and_shows_no_stream_key():
    port = servers.free_port()
    url = f"rtmp://127.0.0.1:{port}/app/S3CRET-KEY"
    sender = servers.Sender("-f", "flv", "-listen", "1", url)
    source = None
    try:
        source = open_source(url, patience=HASTY)  # it tries until the sender listens
        assert shows(source.read(), "red")
        sender.kill()
        sender = servers.Sender("-f", "flv", "-listen", "1", url, size="192x108", colour="blue")
        assert reconnected(source, "blue").rgb.shape == (96, 128, 3)
        assert "S3CRET" not in " ".join(source.news()) + str(source.report())
    finally:
        sender.kill()
        if source is not None:
            source.close()


@pytest.fixture
def srt_port():
    if not srt.libraries_have_srt() and not srt.speaks_srt(servers.need_ffmpeg()):
        pytest.skip("neither PyAV nor ffmpeg has SRT: apt-get install ffmpeg")
    return servers.free_port(socket.SOCK_DGRAM)


def test_srt_is_received_and_comes_back(srt_port):
    output = ("-f", "mpegts", f"srt://127.0.0.1:{srt_port}?mode=listener")
    sender = servers.Sender(*output)
    source = None
    try:
        source = open_source(f"srt://127.0.0.1:{srt_port}", patience=HASTY)
        assert shows(source.read(), "red") and source.info.live
        sender.kill()
        sender = servers.Sender(*output, colour="blue")
        assert reconnected(source, "blue").stamp.seq > 0
        assert source.report()["reconnects"] >= 1
    finally:
        sender.kill()
        if source is not None:
            source.close()


def test_nobody_at_an_srt_address_is_said_without_the_passphrase(srt_port):
    with pytest.raises(SourceLost, match="cannot be reached") as nobody:
        open_source(f"srt://127.0.0.1:{srt_port}?passphrase=S3CRET-phrase", patience=Patience(first=1.0, silence=1.0))
    assert "S3CRET" not in str(nobody.value)


def test_without_any_srt_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(srt, "libraries_have_srt", lambda: False)
    monkeypatch.setattr(srt.shutil, "which", lambda name: None)
    with pytest.raises(SourceError, match=r"there is no ffmpeg program. Try: sudo apt-get install ffmpeg"):
        open_source("srt://anna:S3CRET@cam:9000")


@pytest.mark.parametrize("url", ["srt://", "rtsp:///live", "rtmp://:1935/app", "http://[::1/x", "rtsp://cam:port/x"])
def test_an_address_without_a_host_is_bad_input(url):
    with pytest.raises(SourceError, match="needs a host"):
        open_source(url)


def test_a_password_that_ffmpegs_rtmp_cannot_be_given_is_bad_input():
    with pytest.raises(SourceError, match=r"rtmp://\*\*\*@host/app/\*\*\*: FFmpeg takes no '/'"):
        open_source("rtmp://anna:S3C/RET@host/app/key")
