"""The HTTP server of the page sink: from the standard library, on loopback, with a thread for each viewer.

The server of the control page (`app/web`) is not used, since a sink has to work without that one's packages
(`warpfuse[web]`), and in a worker process that does not load them.
"""

import re
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from warpfuse.stages.errors import SinkError
from warpfuse.stages.sinks.fanout import Fanout, Jpeg

# Note: one picture a request. The page asks for a picture newer than the one it has drawn. So no picture queues between
# server and screen, however slow they are. An MJPEG stream first fills the kernel's buffers, and then lags by seconds.
_PAGE = b"""<!doctype html><meta charset="utf-8"><title>warpfuse</title>
<style>html,body{margin:0;height:100%;overflow:hidden;background:#000}
canvas{display:block;width:100%;height:100%;object-fit:contain}</style>
<canvas></canvas>
<script>
const canvas = document.querySelector("canvas"), paint = canvas.getContext("2d", {alpha: false, desynchronized: true});
const pause = ms => new Promise(done => setTimeout(done, ms));
(async () => {
  let number = 0;
  for (;;) {
    try {
      const answer = await fetch("/frame.jpg?after=" + number, {cache: "no-store"});
      if (answer.status === 204) continue;
      if (!answer.ok) throw answer.status;
      const next = Number(answer.headers.get("X-Number"));
      const bitmap = await createImageBitmap(await answer.blob());
      if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
        canvas.width = bitmap.width; canvas.height = bitmap.height;
      }
      paint.drawImage(bitmap, 0, 0);
      bitmap.close();
      number = next;
    } catch (error) { number = 0; await pause(500); }  // the last picture stays; a new run starts at 1 again
  }
})();
</script>
"""

_WAIT_S = 2.0
_SEND_BYTES = 1 << 17  # the kernel's send buffer; data waiting in it delay the picture of an MJPEG viewer
_IDLE_S = 10.0
_MOST_CONNECTIONS = 32
_BOUNDARY = "warpfuse"
_LOCAL_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")


class PictureServer:
    """Serves /view (the page), /frame.jpg?after=N and /mjpeg until it is closed.

    address  URL of the page, with the port in use
    """

    def __init__(self, port: int, name: str, fanout: Fanout) -> None:
        handler = type("Handler", (_Handler,), {"fanout": fanout})
        bound = self.bound(port, name)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)  # accepted sockets inherit it
        self._server = _Server(bound, handler)
        self.address = f"http://127.0.0.1:{bound.getsockname()[1]}/view"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="wf:page", daemon=True)
        self._thread.start()

    @staticmethod
    def bound(port: int, name: str) -> socket.socket:
        """A socket bound to the port on loopback. Raises SinkError if that fails, mostly because it is in use."""
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(("127.0.0.1", port))
        except OSError as error:
            bound.close()
            why = "another program serves there" if error.errno == 98 else error.strerror
            raise SinkError(f"{name}: port {port} cannot be had ({why}). Name another, as in page:8081.") from None
        return bound

    def close(self) -> None:
        """Stop and free the port. A second call does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, bound: socket.socket, handler: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(bound.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._open) >= _MOST_CONNECTIONS:
            self.shutdown_request(request)
            return
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close, and end the threads that wait for a viewer."""
        for request in list(self._open):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: viewers disconnect at any time."""


class _Handler(BaseHTTPRequestHandler):
    fanout: Fanout
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "warpfuse", ""
    timeout = _IDLE_S  # of the socket: a viewer that takes nothing for this long is disconnected
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if not _LOCAL_HOST.fullmatch(self.headers.get("Host", "")):
            self._answer(HTTPStatus.FORBIDDEN)  # DNS rebinding: another site's name that resolves to this machine
        elif asked.path in ("/", "/view"):
            self._answer(HTTPStatus.OK, _PAGE, "text/html; charset=utf-8")
        elif asked.path == "/frame.jpg":
            after = parse_qs(asked.query).get("after", ["0"])[0]
            jpeg = self.fanout.newer_than(int(after) if after.isdecimal() and len(after) < 16 else 0, _WAIT_S)
            self._answer(HTTPStatus.NO_CONTENT) if jpeg is None else self._picture(jpeg)
        elif asked.path == "/mjpeg":
            self._mjpeg()
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def _picture(self, jpeg: Jpeg) -> None:
        self._answer(HTTPStatus.OK, jpeg.data, "image/jpeg", {"X-Number": str(jpeg.number)})

    def _mjpeg(self) -> None:
        if not self.fanout.enter():
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        try:
            self.close_connection = True
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            number = 0
            while not self.fanout.closed:
                jpeg = self.fanout.newer_than(number, _WAIT_S)
                if jpeg is not None:
                    number = jpeg.number
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg.data)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg.data + b"\r\n")
        finally:
            self.fanout.leave()

    def _answer(
        self, status: HTTPStatus, body: bytes = b"", kind: str = "text/plain", more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: there would be a line for each picture."""
