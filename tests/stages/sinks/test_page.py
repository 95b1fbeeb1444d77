import http.client
import socket
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest

from warpfuse.stages.errors import SinkError
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.sinks.fanout import Fanout
from warpfuse.stages.stage import VideoInfo

SIZE = (64, 48)
INFO = VideoInfo(*SIZE, Fraction(25), Fraction(1, 25), live=True)


def frame(number: int, level: int = 0) -> RawFrame:
    rgb = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    rgb[:] = (200, 40, level)
    return RawFrame(Stamp(number, number * 40_000_000), rgb)


@pytest.fixture
def sink() -> Iterator[Any]:
    sink = open_sink("page:0", INFO, SIZE)
    yield sink
    sink.close(True)
    sink.close(True)


def connect(sink: Any) -> http.client.HTTPConnection:
    port = int(sink.server.address.split(":")[2].split("/")[0])
    return http.client.HTTPConnection("127.0.0.1", port, timeout=20)


def ask(connection: http.client.HTTPConnection, path: str, **headers: str) -> tuple[int, Any, bytes]:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def colour(jpeg: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture[:, :, ::-1].reshape(-1, 3).mean(0)


def test_a_viewer_gets_the_newest_picture_in_its_colours(sink: Any) -> None:
    for number in range(3):
        sink.write(frame(number, 100))
    connection = connect(sink)
    status, headers, body = ask(connection, "/frame.jpg?after=0")
    assert (status, headers["X-Number"]) == (200, "3")
    np.testing.assert_allclose(colour(body), (200, 40, 100), atol=3)
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(connection, "/frame.jpg?after=3")))
    waiting.start()
    sink.write(frame(3, 200))
    waiting.join(20)
    connection.close()
    np.testing.assert_allclose(colour(answers[0][2]), (200, 40, 200), atol=3)


def test_the_page_asks_for_pictures_and_nothing_from_elsewhere(sink: Any) -> None:
    connection = connect(sink)
    status, _, body = ask(connection, "/view")
    connection.close()
    assert status == 200
    assert b"/frame.jpg?after=" in body
    assert b"http:" not in body
    assert b"https:" not in body


@pytest.mark.parametrize(("path", "host", "status"), [("/etc/passwd", "localhost", 404), ("/view", "evil.test", 403)])
def test_other_paths_and_other_names_are_refused(sink: Any, path: str, host: str, status: int) -> None:
    connection = connect(sink)
    assert ask(connection, path, Host=host)[0] == status
    connection.close()


def test_mjpeg_is_parts_of_pictures(sink: Any) -> None:
    connection = connect(sink)
    sink.write(frame(0, 100))
    connection.request("GET", "/mjpeg")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
    assert answer.readline() == b"--warpfuse\r\n"
    answer.readline()
    length = int(answer.readline().split(b":")[1])
    answer.readline()
    np.testing.assert_allclose(colour(answer.read(length)), (200, 40, 100), atol=3)
    connection.close()


def test_a_viewer_that_never_reads_holds_up_nobody(sink: Any) -> None:
    port = int(sink.server.address.split(":")[2].split("/")[0])
    noise = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    with socket.create_connection(("127.0.0.1", port)) as stuck:
        stuck.sendall(b"GET /mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection = connect(sink)
        for number in range(300):  # far more than the kernel's buffers hold
            sink.write(RawFrame(Stamp(number, number * 40_000_000), noise))
            status, headers, _ = ask(connection, f"/frame.jpg?after={number}")
            assert (status, headers["X-Number"]) == (200, str(number + 1))
        connection.close()


def test_a_picture_is_encoded_once_however_many_look_and_never_if_none_does() -> None:
    fanout = Fanout(SIZE)
    for number in range(5):
        fanout.put(frame(number).rgb)
    assert fanout.encoded == 0
    seen: list[Any] = []
    viewers = [threading.Thread(target=lambda: seen.append(fanout.newer_than(0, 20))) for _ in range(8)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join(20)
    assert fanout.encoded == 1
    assert {jpeg.number for jpeg in seen} == {5}
    assert fanout.newer_than(5, 0) is None


def test_a_fanout_admits_so_many_and_no_more() -> None:
    fanout = Fanout(SIZE, most_viewers=2)
    assert [fanout.enter() for _ in range(3)] == [True, True, False]
    fanout.leave()
    assert fanout.enter()


@pytest.mark.parametrize("url", ["page:", "page:99999", "http://127.0.0.1/view", "http://127.0.0.1:80/other", "page:x"])
def test_what_is_no_page_is_said(url: str) -> None:
    with pytest.raises(SinkError, match="not a page"):
        check(url)


def test_a_page_for_others_is_refused() -> None:
    with pytest.raises(SinkError, match=r"this machine only, not on 0\.0\.0\.0"):
        check("http://0.0.0.0:8080/view")


def test_a_port_that_is_taken_is_said(sink: Any) -> None:
    with pytest.raises(SinkError, match="another program serves there"):
        check(f"page:{sink.server.address.split(':')[2].split('/')[0]}")
