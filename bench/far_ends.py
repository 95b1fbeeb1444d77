"""The two ends of `bench_latency.py`: a camera that draws numbers into its pictures, and viewers that read them."""

import http.client
import multiprocessing
import subprocess
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from support.peers import SYSTEM_PYTHON, free_port

from warpfuse.doctor import burnt_code
from warpfuse.stages.errors import SourceLost
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source
from warpfuse.stages.stage import VideoInfo

READY = "ready"  # said by a viewer that has to be there before the first picture
Seen = list[tuple[float, int | None]]

LONGER_S = 6.0  # a viewer is there for so much longer than the camera

_SERVER = Path(__file__).resolve().parent.parent / "tests" / "support" / "rtsp_recorder.py"


class Camera:
    """A live source with pictures at fixed times. If it is read too late, it gives the newest and counts the others.

    taken  monotonic seconds at which each picture was taken, by its number
    """

    def __init__(self, size: tuple[int, int], fps: int, seconds: float) -> None:
        self.info = VideoInfo(*size, Fraction(fps), Fraction(1, fps), live=True)
        self.warning: str | None = None
        self.taken: list[float] = []
        self.missed = 0
        self._fps, self._last = fps, int(seconds * fps)
        self._tick = -1
        rng = np.random.default_rng(0)
        self._scene = cv2.resize(rng.integers(40, 200, (6, 20, 3), np.uint8), (2 * size[0], size[1]))
        self._begun = 0.0
        self.watched = threading.Event()  # no picture before there is a viewer

    def read(self) -> RawFrame | None:
        """The next picture, with its number burned in."""
        self.watched.wait()
        self._begun = self._begun or time.monotonic()
        tick = max(self._tick + 1, int((time.monotonic() - self._begun) * self._fps))
        self.missed += tick - self._tick - 1
        self._tick = tick
        if tick >= self._last:
            return None
        at = self._begun + tick / self._fps
        time.sleep(max(0.0, at - time.monotonic()))
        number = len(self.taken)
        left = 3 * number % self.info.width
        rgb = np.ascontiguousarray(self._scene[:, left : left + self.info.width])
        burnt_code.burn(rgb, number)
        self.taken.append(at)
        return RawFrame(Stamp(number, tick * 10**9 // self._fps), rgb)

    def number_of(self, seq: int) -> int | None:
        """The number in the picture of this frame."""
        return seq

    def close(self) -> None:
        """Nothing is held."""


def publish(url: str, size: tuple[int, int], fps: int, seconds: float, out: Any) -> None:
    """Publish the camera by an RTSP server, in a process of its own. Returns when it took each picture, and the number
    of missed ones."""
    camera = Camera(size, fps, seconds)
    camera.watched.set()
    sink = open_sink(url, camera.info, size)
    while (frame := camera.read()) is not None:
        sink.write(frame)
    sink.close(True)
    out.send((camera.taken, camera.missed))


class RtspCamera:
    """The same camera, read from an RTSP server. The latency includes encoder, server and decoder.

    taken, missed  those of the camera, after its end
    """

    def __init__(self, size: tuple[int, int], fps: int, seconds: float) -> None:
        port = free_port()
        self._server = rtsp_server(port)
        spawned = multiprocessing.get_context("spawn")
        self._told, out = spawned.Pipe(duplex=False)
        arguments = (f"rtsp://127.0.0.1:{port}/live#patience=60", size, fps, seconds, out)
        self._publisher = spawned.Process(target=publish, args=arguments)
        self._publisher.start()
        self._numbers: dict[int, int | None] = {}
        self._source: Any = None
        while self._source is None:
            try:
                self._source = open_source(f"rtsp://127.0.0.1:{port}/watch", size)
            except SourceLost:  # nothing is published yet
                assert self._publisher.is_alive(), "the publisher has died"
        self.info = self._source.info
        self.warning: str | None = None
        self.watched = threading.Event()

    def read(self) -> RawFrame | None:
        """The newest picture. The end is the publisher's."""
        raw: RawFrame | None = None if self._told.poll() else self._source.read()
        if raw is not None:
            self._numbers[raw.stamp.seq] = burnt_code.read(raw.rgb)
        return raw

    def number_of(self, seq: int) -> int | None:
        """The number in the picture of this frame, None where it could not be read."""
        return self._numbers[seq]

    def close(self) -> None:
        """Hear what the camera did, end the server."""
        if self._server.poll() is None:
            self._source.close()
            self.taken, self.missed = self._told.recv()
            self._publisher.join()
            end(self._server)


def rtsp_server(port: int) -> "subprocess.Popen[str]":
    """A server that serves at /watch what is published at /live."""
    server = subprocess.Popen([SYSTEM_PYTHON, str(_SERVER), str(port), "play"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert "ready" in server.stdout.readline()
    return server


def end(server: "subprocess.Popen[str]") -> None:
    """Kill the process."""
    server.kill()
    server.wait()
    assert server.stdout is not None
    server.stdout.close()


def watch_rtsp(url: str, _: tuple[int, int], seconds: float, out: Any) -> None:
    """A viewer of the server: (monotonic seconds, number or None) of each picture, when it is decoded."""
    seen: Seen = []
    end = time.monotonic() + seconds
    low = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "65536", "analyzeduration": "0"}
    while not seen and time.monotonic() < end:
        try:
            with av.open(url, options={**low, "rtsp_transport": "tcp"}, timeout=(15, 3)) as opened:
                stream = opened.streams.video[0]
                stream.codec_context.thread_count = 1
                for frame in opened.decode(stream):
                    luma = frame.reformat(format="gray").to_ndarray()
                    seen.append((time.monotonic(), burnt_code.read(luma)))
                    if time.monotonic() > end:
                        break
        except (av.error.FFmpegError, OSError):
            time.sleep(0.5)  # nothing is published yet
    out.send(seen)


def watch_listener(url: str, size: tuple[int, int], seconds: float, out: Any) -> None:
    """ffmpeg as the server, which returns decoded luma."""
    seen: Seen = []
    listen = ["-listen", "1"] if url.startswith("rtmp") else []
    low = ["-fflags", "nobuffer", "-flags", "low_delay", "-probesize", "32", "-analyzeduration", "0", "-threads", "1"]
    out_options = ["-f", "rawvideo", "-pix_fmt", "gray", "-vsync", "passthrough", "-flush_packets", "1", "pipe:1"]
    command = ["timeout", str(seconds + 2), "ffmpeg", "-loglevel", "error", *low, *listen, "-i", url, *out_options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as ffmpeg:
        assert ffmpeg.stdout is not None
        while len(data := ffmpeg.stdout.read(size[0] * size[1])) == size[0] * size[1]:
            luma = np.frombuffer(data, np.uint8).reshape(size[1], size[0])
            seen.append((time.monotonic(), burnt_code.read(luma)))
    out.send(seen)


def watch_camera(device: str, _: tuple[int, int], seconds: float, out: Any) -> None:
    """A program that reads the virtual camera. It prints READY, and ends first: reading a closed camera blocks."""
    seen: Seen = []
    with av.open(device, format="v4l2") as camera:
        out.send(READY)
        end = time.monotonic() + seconds - LONGER_S - 0.5
        for frame in camera.decode(camera.streams.video[0]):
            luma = frame.reformat(format="gray").to_ndarray()
            seen.append((time.monotonic(), burnt_code.read(luma)))
            if time.monotonic() > end:
                break
    out.send(seen)


def watch_page(url: str, _: tuple[int, int], seconds: float, out: Any) -> None:
    """A viewer of the page, which works like the page's script."""
    seen: Seen = []
    end = time.monotonic() + seconds
    number = "0"
    port = int(url.rpartition(":")[2])
    while time.monotonic() < end:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            while time.monotonic() < end:
                connection.request("GET", f"/frame.jpg?after={number}")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    number = answer.headers["X-Number"]
                    luma = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_GRAYSCALE)
                    seen.append((time.monotonic(), burnt_code.read(luma)))
        except OSError:
            if seen:
                break
            time.sleep(0.05)
    out.send(seen)
