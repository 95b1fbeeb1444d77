"""What a host of a cluster tells over HTTP to who has the token for reading: figures, and pictures of its streams.

It is from the standard library, since hosts do not have the packages of the control page (`warpfuse[web]`).

/metrics                       for Prometheus
/streams/NAME/picture.jpg      what the stream showed last; 404: there is no such stream, or no picture of it yet
"""

import hmac
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.control.messages import StreamCounts
from warpfuse.graph.control.run import ManyStreams, Run
from warpfuse.graph.metrics.prometheus import RunCollector
from warpfuse.stages.sinks.fanout import jpeg

ADDRESS = "http"
"""A file of this name in the folder of a host tells where it is asked, as in 10.0.0.2:41234."""

_IDLE_S = 10.0


class HostServer:
    """Serves the figures and pictures of a host until it is closed. A context manager.

    where  address and port
    Raises OSError: the address cannot be bound.
    """

    def __init__(self, address: str, run: ManyStreams, token: str) -> None:
        registry = CollectorRegistry()
        registry.register(RunCollector(run.stats))
        registry.register(StreamCollector(run.counts))
        fixed = {"streams": lambda: run.streams, "registry": registry, "token": f"Bearer {token}"}
        self._server = _Server((address, 0), type("Handler", (_Handler,), fixed))
        self.where = f"{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="wf:http", daemon=True)

    def __enter__(self) -> "HostServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class StreamCollector(Collector):
    """Collects the frames of every stream of a host."""

    def __init__(self, counts: Callable[[], Mapping[str, StreamCounts]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """The streams under way, and those that are over and not forgotten."""
        labels = ["stream", "what"]
        frames = CounterMetricFamily(
            "warpfuse_stream_frames", "Frames of a stream here, by what became of them", labels=labels
        )
        now = GaugeMetricFamily(
            "warpfuse_stream_under_way", "Frames of a stream between source and sinks", labels=["stream"]
        )
        for name, counts in self._counts().items():
            told = {"in": counts.into, "out": counts.out, "repeated": counts.repeated, "dropped": counts.dropped}
            for what, count in told.items():
                frames.add_metric([name, what], count)
            now.add_metric([name], counts.under_way)
        yield frames
        yield now


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: who asks may leave at any time."""


class _Handler(BaseHTTPRequestHandler):
    streams: Callable[[], Mapping[str, Run]]
    registry: CollectorRegistry
    token: str
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "warpfuse", ""
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Answer who has the token."""
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            self._answer(HTTPStatus.UNAUTHORIZED)
            return
        parts = [unquote(part) for part in self.path.split("?")[0].split("/")[1:]]
        if parts == ["metrics"]:
            self._answer(HTTPStatus.OK, generate_latest(self.registry), CONTENT_TYPE_LATEST)
        elif len(parts) == 3 and (parts[0], parts[2]) == ("streams", "picture.jpg"):
            picture = _picture(type(self).streams().get(parts[1]))
            self._answer(HTTPStatus.OK if picture else HTTPStatus.NOT_FOUND, picture, "image/jpeg")
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def _answer(self, status: HTTPStatus, body: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: there would be a line for each picture."""


def _picture(run: Run | None) -> bytes:
    """What a stream showed last, as JPEG; empty: nothing yet."""
    if run is None:
        return b""
    try:
        png = run.snapshot()
    except WarpfuseError:  # it has ended meanwhile
        return b""
    bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) if png else None
    return b"" if bgr is None else jpeg(np.asarray(bgr[:, :, ::-1], np.uint8))
