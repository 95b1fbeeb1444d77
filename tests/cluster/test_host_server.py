"""What a host tells over HTTP: the frames of every stream and its picture, to who has the token."""

import contextlib
import threading
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
from support.waiting import until

from warpfuse.cluster.host_server import HostServer
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import open_run

STREAM = {"source": "pattern:96x64@25,frames=20,live=0", "sinks": ["null:"], "size": "96x64", "fusion": 0}


@pytest.fixture
def host(exact_bundle):
    """A host with one stream, and its server."""
    stop = threading.Event()
    with contextlib.ExitStack() as undo:
        keys = {"host": True, "bundle": exact_bundle, "prompt": "same", "streams": {"yard": {**STREAM, "loop": True}}}
        run = open_run(read_streams(keys), undo, stop=stop)
        run.start()
        waiting = threading.Thread(target=run.wait)
        waiting.start()
        try:
            with HostServer("127.0.0.1", run, "secret") as server:
                yield run, server.where
        finally:
            stop.set()
            waiting.join()


def get(where, path, token="secret"):
    asked = urllib.request.Request(f"http://{where}{path}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return answer.read()


def test_the_frames_of_a_stream_are_told_as_its_run_counts_them(host):
    run, where = host
    until(lambda: run.counts()["yard"].out > 3, "some frames")
    before = run.counts()["yard"]
    told = get(where, "/metrics").decode()
    after = run.counts()["yard"]
    line = next(
        line for line in told.splitlines() if line.startswith('warpfuse_stream_frames_total{stream="yard",what="out"}')
    )
    assert before.out <= float(line.split()[-1]) <= after.out
    assert "warpfuse_frames_total" in told, "the figures of the whole host"


def test_the_picture_is_what_the_stream_showed(host):
    run, where = host
    until(lambda: run.streams["yard"].snapshot(), "a picture")
    run.streams["yard"].pause()
    held = until(lambda: (png := run.streams["yard"].snapshot()) == run.streams["yard"].snapshot() and png, "a pause")
    shown = cv2.imdecode(np.frombuffer(get(where, "/streams/yard/picture.jpg"), np.uint8), cv2.IMREAD_COLOR)
    true = cv2.imdecode(np.frombuffer(held, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (64, 96, 3) and true.std() > 10
    assert np.abs(shown.astype(int) - true).mean() < 8 < np.abs(255 - shown.astype(int) - true).mean()


@pytest.mark.parametrize(
    "path, token, code",
    [
        ("/metrics", "other", 401),
        ("/streams/yard/picture.jpg", "", 401),
        ("/streams/door/picture.jpg", "secret", 404),
        ("/../secret", "secret", 404),
    ],
)
def test_who_has_not_the_token_or_asks_for_what_is_not_there_gets_nothing(host, path, token, code):
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(host[1], path, token)
    assert refused.value.code == code and refused.value.read() == b""
