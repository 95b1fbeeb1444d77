"""How old is the picture that a viewer sees? Software end to end: from a live source to the far end of a sink.

A frame's number with a checksum is burned into its pixels and read back where a viewer would look: at an RTSP client
behind a server, at an RTMP server, at an SRT listener, at a client of the page, each a process of its own on the same
clock. Two figures: the latency of every frame that arrived, and the age of what is shown at each tick of a screen.
The second counts what was dropped or repeated, which flatters the first. The floor of the age is half a period of the
source.

With `--style empty` the source feeds the sink; with `embedded` the whole graph lies between, and the number is burned
in behind it. The first two seconds are not counted. RTSP needs gst-rtsp-server (Debian's python3), RTMP and SRT ffmpeg.

    python bench/bench_latency.py [--sinks rtsp rtmp srt page] [--style empty embedded] [--seconds N] [--plot FILE.png]
"""

import argparse
import http.client
import json
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np

TESTS = Path(__file__).resolve().parent.parent / "tests" / "stages"
sys.path += [str(TESTS), str(TESTS / "sinks")]
import burnt_code  # noqa: E402
from peers import SYSTEM_PYTHON, free_port  # noqa: E402

from warpfuse.graph.config import validate  # noqa: E402
from warpfuse.graph.opening import prepare  # noqa: E402
from warpfuse.graph.run import Running  # noqa: E402
from warpfuse.graph.worker import Ends  # noqa: E402
from warpfuse.stages.frame import RawFrame, Stamp  # noqa: E402
from warpfuse.stages.sinks import open_sink  # noqa: E402
from warpfuse.stages.stage import VideoInfo  # noqa: E402

WARM_UP_S = 2.0
AGE_HZ = 240  # of a screen; the age of what it shows
SINKS = ["rtsp", "rtmp", "srt", "page"]
Seen = list[tuple[float, int | None]]


class Camera:
    """A live source: pictures at absolute deadlines; one that is asked too late gives the newest and counts the rest.

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

    def close(self) -> None:
        """Nothing is held."""


class BurnIn:
    """A sink before which the number is burned in anew: a style leaves nothing of it."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    @property
    def notes(self) -> list[str]:
        """The sink's."""
        notes: list[str] = self._sink.notes
        return notes

    def write(self, frame: RawFrame) -> None:
        """Burn and pass on."""
        rgb = frame.rgb.copy()
        burnt_code.burn(rgb, frame.stamp.seq)
        self._sink.write(RawFrame(frame.stamp, rgb))

    def close(self, complete: bool) -> None:
        """The sink's."""
        self._sink.close(complete)


def watch_rtsp(url: str, _: tuple[int, int], seconds: float, out: Any) -> None:
    """A viewer behind the server: (monotonic seconds, number or None) of each picture, as soon as it is decoded."""
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
    """ffmpeg as the server; it gives decoded luma."""
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


def watch_page(url: str, _: tuple[int, int], seconds: float, out: Any) -> None:
    """A viewer of the page, as its script does it."""
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


def measure(sink: str, style: str, size: tuple[int, int], fps: int, seconds: float) -> dict[str, Any]:
    """One run through one kind of sink."""
    port = free_port()
    server = None
    watch = watch_rtsp
    match sink:
        case "rtsp":
            command = [SYSTEM_PYTHON, str(TESTS / "sinks" / "rtsp_server.py"), str(port), "play"]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert server.stdout is not None
            assert "ready" in server.stdout.readline()
            url, far = f"rtsp://127.0.0.1:{port}/live#patience=60", f"rtsp://127.0.0.1:{port}/watch"
        case "rtmp":
            url = f"rtmp://127.0.0.1:{port}/live/key"
            far, watch = url, watch_listener
            url += "#patience=60"
        case "srt":
            url, far = f"srt://127.0.0.1:{port}#patience=60", f"srt://127.0.0.1:{port}?mode=listener"
            watch = watch_listener
        case _:
            url, far, watch = f"page:{port}", f"127.0.0.1:{port}", watch_page
    ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    arguments = (far, size, seconds + 6, theirs)
    viewer = multiprocessing.get_context("spawn").Process(target=watch, args=arguments)

    def watch_now() -> None:
        viewer.start()
        table = {"rtmp": "/proc/net/tcp", "srt": "/proc/net/udp"}.get(sink)
        while table and f":{port:04X} " not in Path(table).read_text():  # these have to be there first
            time.sleep(0.1)

    try:
        camera, notes = drive(url, style, size, fps, seconds, watch_now)
        seen: Seen = ours.recv() if ours.poll(30) else []
        viewer.join(10)
    finally:
        viewer.kill()
        if server is not None:
            server.kill()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()
    return {"sink": sink, "style": style, **figures(camera, seen), "notes": notes}


def drive(
    url: str, style: str, size: tuple[int, int], fps: int, seconds: float, watch: Callable[[], None]
) -> tuple[Camera, list[str]]:
    """Send pictures for so long, through nothing or through the graph."""
    if style == "empty":
        camera = Camera(size, fps, seconds)
        sink = open_sink(url, camera.info, size)
        watch()
        camera.watched.set()
        while (frame := camera.read()) is not None:
            sink.write(frame)
        sink.close(True)
        return camera, sink.notes
    config = validate({"source": "pattern:", "sinks": [url], "size": f"{size[0]}x{size[1]}", "workers": "one"})
    materials = prepare(config, size, lambda line: None)
    camera = Camera(materials.size, fps, seconds)
    ends = Ends(lambda: camera, lambda url: BurnIn(open_sink(url, camera.info, materials.size)), True, rewind=False)
    running = Running(materials, ends, threading.Event())
    try:
        running.open()
        watch()
        camera.watched.set()
        return camera, list(running.wait().warnings)
    finally:
        running.close()
        materials.close()


def figures(camera: Camera, seen: Seen) -> dict[str, Any]:
    """What the viewer's list says, without its first two seconds."""
    if not seen:
        return {"arrived": 0}
    taken, begin = camera.taken, seen[0][0] + WARM_UP_S
    counted = [(at, number) for at, number in seen if at >= begin and at <= taken[-1]]
    good = [(at, number) for at, number in counted if number is not None and number < len(taken)]
    latency = np.array([at - taken[number] for at, number in good]) * 1e3
    ages, newest = [], None
    waiting = iter(good)
    following = next(waiting, None)
    for tick in np.arange(begin, taken[-1], 1 / AGE_HZ):
        while following is not None and following[0] <= tick:
            newest, following = following[1], next(waiting, None)
        if newest is not None:
            ages.append((tick - taken[newest]) * 1e3)
    numbers = [number for _, number in good]
    steps = np.diff(numbers) if len(numbers) > 1 else np.array([0])
    return {
        "arrived": len(good),
        "latency_ms": spread(latency),
        "age_ms": spread(np.array(ages)),
        "trend_ms_a_minute": trend(np.array([taken[number] for _, number in good]), latency),
        "skipped": int(np.maximum(steps - 1, 0).sum()),
        "repeated": int((steps == 0).sum()),
        "bad_codes": len(counted) - len(good),
        "missed_at_source": camera.missed,
        "samples": np.round(latency, 1).tolist(),
    }


def spread(values: Any) -> dict[str, float]:
    """Percentiles."""
    if not len(values):
        return {}
    named = {name: float(np.percentile(values, share)) for name, share in (("p50", 50), ("p95", 95), ("p99", 99))}
    return {name: round(value, 1) for name, value in {**named, "max": float(values.max())}.items()}


def trend(taken: Any, latency: Any) -> float | None:
    """By how much the median latency of 5 s changes in a minute (least squares); none of less than 20 s."""
    block = ((taken - taken[0]) // 5).astype(int) if len(taken) else np.zeros(0, int)
    medians = [float(np.median(latency[block == number])) for number in np.unique(block)]
    return round(12 * float(np.polyfit(np.unique(block), medians, 1)[0]), 2) if len(medians) >= 4 else None


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The distribution of each row's latencies: the share of frames (down) that took longer (right, 0 to 500 ms)."""
    width, height, left, most = 720, 360, 60, 500.0
    canvas = np.full((height + 60, width + 2 * left, 3), 255, np.uint8)
    for ms in range(0, int(most) + 1, 50):
        x = left + int(ms / most * width)
        cv2.line(canvas, (x, 20), (x, 20 + height), (225, 225, 225), 1)
        cv2.putText(canvas, f"{ms}", (x - 12, height + 40), 0, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    for index, row in enumerate(rows):
        colour = tuple(int(v) for v in cv2.cvtColor(np.uint8([[[index * 30, 200, 170]]]), cv2.COLOR_HSV2BGR)[0, 0])
        values = np.sort(row.get("samples") or [0.0])
        share = np.linspace(1, 0, len(values))
        x = left + np.minimum(values, most) / most * width
        points = np.stack([x, 20 + height * (1 - share)], 1).astype(np.int32)
        cv2.polylines(canvas, [points], False, colour, 2, cv2.LINE_AA)
        name = f"{row['sink']} {row['style']}"
        cv2.putText(canvas, name, (left + width - 130, 40 + 18 * index), 0, 0.45, colour, 1, cv2.LINE_AA)
    cv2.putText(canvas, "share of frames that took longer than ... ms", (left, 14), 0, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), canvas)


def main() -> None:
    """Measure; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sinks", nargs="+", default=SINKS, choices=SINKS)
    parser.add_argument("--style", nargs="+", default=["empty", "embedded"], choices=["empty", "embedded"])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--size", default="640x360", help="of the empty style")
    parser.add_argument("--styled-size", default="320x192", help="of the embedded one")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--styled-fps", type=int, default=5, help="what the machine can keep up with")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rows = []
    for style in options.style:
        text, fps = (options.size, options.fps) if style == "empty" else (options.styled_size, options.styled_fps)
        width, height = (int(side) for side in text.split("x"))
        for sink in options.sinks:
            row = measure(sink, style, (width, height), fps, options.seconds)
            shown = {key: value for key, value in row.items() if key != "samples"}
            print(json.dumps({**shown, "size": text, "fps": fps}), flush=True)
            rows.append(row)
    if options.plot:
        plot(rows, options.plot)
    print(json.dumps({"bench": "latency", "rows": [{k: v for k, v in row.items() if k != "samples"} for row in rows]}))


if __name__ == "__main__":
    main()
