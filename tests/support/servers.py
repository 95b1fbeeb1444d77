"""Real servers for live sources, each a process of its own on a free port of 127.0.0.1."""

import base64
import contextlib
import hashlib
import http.server
import itertools
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

_RTSP = Path(__file__).with_name("rtsp_camera.py")
_SYSTEM_PYTHON = "/usr/bin/python3"
COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}


class RtspServer:
    """gst-rtsp-server with a picture of one colour at /live. `start` after `kill` takes the same port again."""

    def __init__(self, account: str = "", transport: str = "any") -> None:
        self.account, self.transport = account, transport
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self._port}/live"

    @property
    def port(self) -> str:
        return self._port

    def start(self, size: str = "128x96", colour: str = "red") -> None:
        red, green, blue = COLOURS[colour]
        argb = str(0xFF << 24 | red << 16 | green << 8 | blue)
        command = [_SYSTEM_PYTHON, str(_RTSP), self._port, size, argb, self.transport]
        command += filter(None, [self.account])
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = self._process.stdout.readline().strip()
        assert self._port.isdigit() and self._port != "0", "the RTSP server did not start"

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Refuser:
    """An RTSP server on a thread that describes an H.264 stream and answers each SETUP with `answer`.

    asked  the transport of each SETUP, up to its parameters
    """

    def __init__(self, answer: str) -> None:
        self.asked: list[str] = []
        refuser = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                for line in self.rfile:
                    method, heads = line.decode().partition(" ")[0], {}
                    for head in iter(self.rfile.readline, b"\r\n"):
                        name, _, value = head.decode().partition(":")
                        heads[name.lower()] = value.strip()
                    status, body = "200 OK", b""
                    if method == "DESCRIBE":
                        body = (
                            b"v=0\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:a\r\n"
                        )
                    elif method == "SETUP":
                        transport = heads["transport"].partition(";")[0]
                        refuser.asked.append(transport.removesuffix("/UDP"))
                        status = answer
                    told = f"RTSP/1.0 {status}\r\nCSeq: {heads['cseq']}\r\nContent-Type: application/sdp\r\n"
                    self.wfile.write(f"{told}Content-Length: {len(body)}\r\n\r\n".encode() + body)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"rtsp://127.0.0.1:{self._server.server_address[1]}/live"

    def __enter__(self) -> "Refuser":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def need_gstreamer() -> None:
    """Skip where the RTSP server's parts are absent."""
    test = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer;"
        "Gst.init(None); assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay')"
    )
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run([_SYSTEM_PYTHON, "-c", test], capture_output=True, check=False).returncode == 0:
            return
    pytest.skip(
        "no RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{good,ugly}"
    )


def need_ffmpeg() -> str:
    """The ffmpeg program; skip without it."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("no ffmpeg program: apt-get install ffmpeg")
    return program


class Sender:
    """An ffmpeg that sends a picture of one colour to, or offers it at, an address."""

    def __init__(self, *output: str, size: str = "128x96", colour: str = "red", seconds: int = 60) -> None:
        red, green, blue = COLOURS[colour]
        source = f"color=0x{red:02x}{green:02x}{blue:02x}:size={size}:rate=25"
        command = [need_ffmpeg(), "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i", source]
        command += ["-t", str(seconds), "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10"]
        command += ["-pix_fmt", "yuv420p", *output]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A free port. Another process may take it before it is used; for a child process there is no better way."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Web:
    """An HTTP server on a thread: `/video.mjpg` as cameras send it, and the files of a folder.

    asked    how often the video was asked for; once: it is given the first time alone
    answers  by path, what else it gives: heads, and pieces of the body until they end or the server closes
    heard    paths and Authorization heads of all requests, in their order
    account  user, password and "Basic" or a hash of Digest, that `answers` are given for
    """

    def __init__(self, folder: Path) -> None:
        self.pictures: list[bytes] = []
        self.token = ""
        self.asked, self.once = 0, False
        self.answers: dict[str, tuple[dict[str, str], Callable[[], Iterable[bytes]]]] = {}
        self.heard: list[tuple[str, str]] = []
        self.account: tuple[str, str, str] | None = None
        web = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def do_GET(self):
                web.heard.append((self.path, self.headers.get("Authorization", "")))
                if self.path in web.answers:
                    self.answer(*web.answers[self.path])
                elif web.token and f"token={web.token}" not in self.path:
                    self.send_error(401)
                elif self.path.startswith("/video.mjpg"):
                    web.asked += 1
                    if web.once and web.asked > 1:
                        self.send_error(503)
                        return
                    self.send_response(200)
                    self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
                    self.end_headers()
                    with contextlib.suppress(OSError):
                        for jpeg in itertools.cycle(web.pictures):
                            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                            self.wfile.write(head.encode() + jpeg + b"\r\n")
                            if web._closing.wait(0.01):
                                return
                else:
                    super().do_GET()

            def answer(self, heads, pieces):
                if web.account is not None and not web.allows(self.headers.get("Authorization", ""), self.path):
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", web.challenge)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(int(heads.get("status", 200)))
                for name, value in heads.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):  # the reader had enough
                    for piece in pieces():
                        self.wfile.write(piece)
                        if web._closing.is_set():
                            return

            def log_message(self, *args):
                pass

            def copyfile(self, source, outputfile):
                with contextlib.suppress(OSError):  # the reader had enough
                    super().copyfile(source, outputfile)

        self._closing = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def challenge(self) -> str:
        kind = self.account[2]
        if kind == "Basic":
            return 'Basic realm="a camera"'
        return f'Digest realm="a camera", qop="auth", nonce="f00d", opaque="x", algorithm={kind}'

    def allows(self, authorization: str, path: str) -> bool:
        """RFC 7617; RFC 7616, 3.4.1."""
        user, password, kind = self.account
        if kind == "Basic":
            return authorization == "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        told = {
            key: bare or quoted for key, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^",\s]+))', authorization)
        }
        if not told:
            return False

        def hashed(text: str) -> str:
            return hashlib.new(kind.replace("-", ""), text.encode()).hexdigest()

        secret, asked = hashed(f"{user}:a camera:{password}"), hashed(f"GET:{path}")
        right = hashed(f"{secret}:f00d:{told['nc']}:{told['cnonce']}:auth:{asked}")
        return (told["username"], told["uri"], told["response"]) == (user, path, right)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
