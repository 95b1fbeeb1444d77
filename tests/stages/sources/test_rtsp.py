"""A real RTSP server that is killed, frozen, restarted with another picture, and locked."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support import servers

from warpfuse.stages.errors import SourceLost
from warpfuse.stages.sources import open_source, probe
from warpfuse.stages.sources.connection import Patience

HASTY = Patience(first=8.0, stall=0.5, silence=1.5, least=0.05, most=0.2, total=60.0)


@pytest.fixture(scope="module", autouse=True)
def gstreamer():
    servers.need_gstreamer()


@pytest.fixture
def server():
    server = servers.RtspServer()
    yield server
    server.kill()


def shows(frame, colour):
    return np.abs(frame.rgb.reshape(-1, 3).mean(0) - servers.COLOURS[colour]).max() < 12


def read_until(source, wanted, most=400):
    """Frames until one is `wanted`, that one last."""
    frames = []
    for _ in range(most):
        frames.append(source.read())
        assert frames[-1] is not None, f"it ended: {source.lost}"
        if wanted(frames[-1]):
            return frames
    raise AssertionError(f"not within {most} frames: {source.report()}")


def test_the_picture_the_size_and_the_times_are_the_cameras(server):
    server.start()
    info = probe(server.url)
    assert (info.width, info.height, info.live, info.frames) == (128, 96, True, None) and info.fps == 25
    source = open_source(server.url, frames=12)
    frames = [source.read() for _ in range(13)]
    source.close()
    assert frames[12] is None and all(shows(frame, "red") for frame in frames[:12])
    assert [frame.stamp.seq for frame in frames[:12]] == list(range(12))
    times = [frame.stamp.pts_ns for frame in frames[:12]]
    assert all(later > sooner for sooner, later in pairwise(times))
    assert all(frame.stamp.arrived_ns > 0 and not frame.stamp.stale for frame in frames[:12])


def test_a_killed_server_that_comes_back_with_another_size_goes_on(server):
    server.start("128x96", "red")
    source = open_source(server.url, size=(64, 48), patience=HASTY)
    assert shows(source.read(), "red")
    server.kill()
    held = read_until(source, lambda frame: frame.stamp.stale)[-1]
    assert shows(held, "red"), "the last picture is held"
    server.start("192x108", "blue")
    back = read_until(source, lambda frame: not frame.stamp.stale)[-1]
    report, news = source.report(), source.news()
    source.close()
    assert shows(back, "blue") and back.rgb.shape == (48, 64, 3) and back.stamp.discontinuity
    assert report["reconnects"] == 1 and report["held"] >= 1 and report["stale_ms"] > 0 and report["state"] == "live"
    assert [line.split(": ", 1)[1].split(" (")[0] for line in news if "stalled" not in line] == [
        "live",
        "reconnecting",
        "live again",
    ]


def test_a_short_freeze_is_a_stall_not_a_new_connection(server):
    server.start()
    source = open_source(server.url, patience=Patience(stall=0.3, silence=20.0))
    source.read()
    server.freeze()
    read_until(source, lambda frame: frame.stamp.stale)
    server.thaw()
    back = read_until(source, lambda frame: not frame.stamp.stale)[-1]
    report = source.report()
    source.close()
    assert not back.stamp.discontinuity and report["reconnects"] == 0 and report["entered"]["stalled"] >= 1


def test_a_long_freeze_is_a_new_connection(server):
    server.start()
    source = open_source(server.url, patience=HASTY)
    source.read()
    server.freeze()
    read_until(source, lambda frame: source.report()["state"] == "reconnecting")
    server.thaw()
    read_until(source, lambda frame: not frame.stamp.stale)
    report = source.report()
    source.close()
    assert report["reconnects"] == 1 and report["last_fault"] in ("silent", "network", "ended")


def test_a_server_that_stays_away_is_lost_in_the_end(server):
    server.start()
    source = open_source(server.url, patience=Patience(stall=0.2, silence=1.0, least=0.05, most=0.1, total=1.0))
    source.read()
    server.kill()
    while source.read() is not None:
        pass
    assert source.lost is not None and "the source is lost" in str(source.lost)
    source.close()


def test_a_wrong_password_is_tried_once_and_never_shown():
    server = servers.RtspServer(account="anna:right")
    server.start()
    try:
        with pytest.raises(SourceLost) as refused:
            open_source(server.url.replace("//", "//anna:wr0ng-Pa55@"))
        text = str(refused.value)
        assert "password was refused" in text and "wr0ng" not in text and "anna" not in text
        source = open_source(server.url.replace("//", "//anna:right@"))
        assert shows(source.read(), "red")
        assert "right" not in " ".join([*source.news(), str(source.report())])
        source.close()
    finally:
        server.kill()


def test_a_password_with_any_character_in_it_is_accepted_as_it_is_typed():
    password = "Wr0ng#a/b?c[d]e:f@g%h &i"
    server = servers.RtspServer(account=f"anna:{password}")
    server.start()
    try:
        source = open_source(server.url.replace("//", f"//anna:{password}@"))
        assert shows(source.read(), "red")
        shown = " ".join([*source.news(), str(source.report())])
        source.close()
        assert "anna" not in shown and "Wr0ng" not in shown and "h &i" not in shown
    finally:
        server.kill()


def test_a_path_that_is_not_there_is_given_up_after_a_few_tries(server):
    server.start()
    with pytest.raises(SourceLost, match=r"there is no such stream. Check the path"):
        open_source(server.url.replace("/live", "/other"), patience=HASTY)


def test_a_camera_that_sends_over_udp_alone_is_received_so_and_it_is_said_once():
    server = servers.RtspServer(transport="udp")
    server.start()
    try:
        source = open_source(server.url, patience=HASTY)
        assert shows(source.read(), "red")
        server.kill()
        read_until(source, lambda frame: frame.stamp.stale)
        server.start(colour="blue")
        assert shows(read_until(source, lambda frame: not frame.stamp.stale)[-1], "blue")
        news = source.news()
        source.close()
        assert [line for line in news if "UDP" in line] == [
            f"{server.url}: the camera refuses RTSP over TCP: received over UDP"
        ]
        with pytest.raises(SourceLost, match=r"does not send over TCP. Let the address end in #udp"):
            open_source(f"{server.url}#tcp", patience=HASTY)
    finally:
        server.kill()


def test_a_camera_that_sends_over_tcp_is_not_asked_for_udp():
    server = servers.RtspServer(transport="tcp")
    server.start()
    try:
        source = open_source(server.url, patience=HASTY)
        assert shows(source.read(), "red") and not [line for line in source.news() if "UDP" in line]
        source.close()
        with pytest.raises(SourceLost, match=r"does not send over UDP. Let the address end in #tcp"):
            open_source(f"{server.url}#udp", patience=HASTY)
    finally:
        server.kill()


@pytest.mark.parametrize("answer", ["461 Unsupported Transport", "406 Not Acceptable", "400 Bad Request"])
def test_whatever_a_camera_refuses_tcp_with_it_is_asked_for_udp(answer):
    with servers.Refuser(answer) as camera:
        with pytest.raises(SourceLost):
            open_source(camera.url, patience=replace(HASTY, first=0.5))
        assert [*camera.asked][:2] == ["RTP/AVP/TCP", "RTP/AVP"]


def test_nobody_there_is_said_with_the_remedy(server):
    server.start()
    server.kill()
    with pytest.raises(SourceLost, match=r"cannot be reached: connection refused. Check host and port"):
        open_source(server.url, patience=Patience(first=0.5, least=0.05, most=0.1))


def test_an_interrupt_ends_a_read_that_waits(server):
    server.start()
    source = open_source(server.url, patience=Patience(stall=60.0))
    source.read()
    server.freeze()
    source.interrupt()  # a read that is still waiting and one that begins now are the same to the caller
    assert source.read() is None
    server.thaw()
    source.close()
