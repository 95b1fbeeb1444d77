"""WHIP and WHEP on this machine: our ends with each other, and what is refused. Browsers: app/web/test_whep.py."""

import itertools
import threading
import urllib.error
import urllib.request
from fractions import Fraction

import numpy as np
import pytest
from support.waiting import until

from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SinkError, SinkLost, SourceError
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks.whip import open as open_sink
from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.webrtc import SDP, Endpoint
from warpfuse.stages.sources.whip import WhipSession
from warpfuse.stages.stage import VideoInfo

pytest.importorskip("aiortc", reason="WebRTC needs the extra 'web'")

SIZE = (160, 120)
INFO = VideoInfo(*SIZE, Fraction(25), Fraction(1, 90_000), live=True)
RED = np.full((SIZE[1], SIZE[0], 3), (200, 30, 30), np.uint8)


class Sending:
    """Feeds a WHIP sink from a thread until closed."""

    def __init__(self, url):
        self.sink = open_sink(url, INFO, SIZE)
        self.lost = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def _feed(self):
        for number in itertools.count():
            if self._ended.wait(0.04):
                return
            try:
                self.sink.write(RawFrame(Stamp(number, number * 40_000_000), RED))
            except SinkLost as lost:
                self.lost = lost
                return

    def close(self, complete=False):
        self._ended.set()
        self._thread.join()
        self.sink.close(complete)


@pytest.fixture
def send():
    senders = []

    def begin(session, token=""):
        senders.append(Sending(session.address.replace("http", "whip", 1) + (f"#token={token}" if token else "")))
        return senders[-1]

    yield begin
    for sender in senders:
        sender.close()


@pytest.fixture
def listening():
    session = WhipSession("127.0.0.1", 0, "letmein")
    yield session
    session.close()


def post(url, body=b"v=0", method="POST", **headers):
    given = {"Content-Type": SDP, **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(url, body, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, dict(error.headers)


def test_what_is_sent_by_whip_arrives_in_its_colours_and_delete_ends_the_session(send, listening):
    sender = send(listening, "letmein")
    picture = next(listening.pictures())
    assert (picture.frame.width, picture.frame.height) == SIZE
    assert np.abs(picture.frame.to_ndarray(format="rgb24").mean((0, 1)) - RED[0, 0]).max() < 12
    assert listening.session
    sender.close()
    assert listening.session == "", "DELETE came"
    assert "letmein" not in " ".join(sender.sink.notes)


def test_a_wrong_token_is_told_once_and_for_good(send, listening):
    sender = send(listening, "wrong")
    until(lambda: sender.lost is not None, "the refusal")
    assert "token was refused" in str(sender.lost) and "wrong" not in str(sender.lost)


def test_a_server_that_comes_back_is_sent_to_again(send):
    first = WhipSession("127.0.0.1", 0)
    sender = send(first)
    next(first.pictures())
    first.close()
    port = int(first.address.rpartition(":")[2].partition("/")[0])
    second = WhipSession("127.0.0.1", port)
    try:
        assert next(second.pictures()).frame.width == SIZE[0]
        until(lambda: sender.sink.sender.connections == 2, "the second connection")
    finally:
        second.close()


def test_what_is_no_offer_or_not_let_in_is_refused(listening):
    bearer = {"Authorization": "Bearer letmein"}
    assert post(listening.address)[0] == 401
    assert post(listening.address, **bearer)[0] == 400, "no offer"
    assert post(listening.address, Content_Type="text/plain", **bearer)[0] == 415
    assert post(listening.address + "x", **bearer)[0] == 404
    assert post(listening.address, b"x" * 100_001, **bearer)[0] == 413
    assert post(listening.address + "/none", None, "DELETE", **bearer)[0] == 404
    assert post(listening.address, b"x", "PATCH", **bearer)[0] == 405
    status, headers = post(listening.address, None, "OPTIONS", Origin="https://elsewhere.example")
    assert status == 204 and headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"


def test_a_page_of_another_origin_needs_a_token():
    session = WhipSession("127.0.0.1", 0)
    try:
        assert post(session.address, Origin="https://elsewhere.example")[0] == 403
        assert post(session.address)[0] == 400, "the control: a program is let in, and its offer is none"
    finally:
        session.close()


@pytest.mark.parametrize("url", ["whip:", "whip:99999", "whip:8889/other", "whip:0.0.0.0:8889", "whip:8889#key=x"])
def test_an_address_to_listen_on_that_is_not_understood_or_open_to_all_is_an_error(url):
    with pytest.raises(SourceError, match=r"expected whip:8889|with a token only"):
        open_source(url)


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("whep://a:8889/cam/whep", Endpoint("http://a:8889/cam/whep")),
        ("wheps://a/cam#token=xyz", Endpoint("https://a/cam", "xyz")),
        ("WHIPS://a/b", Endpoint("https://a/b")),
    ],
)
def test_an_address_is_that_of_http_and_its_token_is_secret(address, endpoint):
    assert Endpoint.parse(address, SinkError) == endpoint
    assert "xyz" not in redact(address)


@pytest.mark.parametrize("address", ["whip:/a", "whip:///path", "whip://a:0/x", "whip://a/b#kbps=3"])
def test_an_address_without_a_host_or_with_another_setting_is_an_error(address):
    with pytest.raises(SinkError, match="expected whip://HOST"):
        open_sink(address, INFO, SIZE)
