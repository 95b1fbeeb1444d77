"""How old is the picture that a viewer sees? Measured in software from a live source to the viewer of a sink.

The number of a frame with a checksum is drawn into its pixels and read back by a viewer: an RTSP client of a server, an
RTMP server, an SRT listener, a client of the page, or a program that reads the virtual camera. Each is a process of its
own with the same clock. There are two figures: the latency of every frame that arrived, and the age of the shown
picture at each tick of a screen. Only the second includes dropped and repeated frames. Its lower bound is half a period
of the source.

With `--style empty` the source is connected to the sink. With `embedded` the whole graph is between them, and the
number is drawn after it. The first two seconds are not counted. RTSP needs gst-rtsp-server (Debian's python3), RTMP and
SRT need ffmpeg, virtualcam needs a v4l2loopback device without another writer.

    python bench/bench_latency.py [--source camera|rtsp] [--sinks rtsp rtmp srt page virtualcam] [--device /dev/videoN]
                                   [--style empty embedded] [--seconds N] [--plot FILE.png]
"""

import argparse
import functools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from delays import figures, plot
from far_ends import (
    LONGER_S,
    READY,
    Camera,
    RtspCamera,
    Seen,
    end,
    rtsp_server,
    watch_camera,
    watch_listener,
    watch_page,
    watch_rtsp,
)
from support.peers import free_port

from warpfuse.doctor import burnt_code
from warpfuse.stages.errors import SinkError
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.sinks.v4l2_output import find_output

SINKS = ["rtsp", "rtmp", "srt", "page"]
READY_S = 120.0  # for a viewer to load its libraries and to open a camera: in an emulated machine they take a while
CAMERAS = {"camera": Camera, "rtsp": RtspCamera}


class BurnIn:
    """A sink that draws the number into each frame again, since restyling removes it."""

    def __init__(self, sink: Any, number_of: Callable[[int], int | None]) -> None:
        self._sink, self._number_of = sink, number_of

    @property
    def notes(self) -> list[str]:
        """The sink's."""
        notes: list[str] = self._sink.notes
        return notes

    def write(self, frame: RawFrame) -> None:
        """Burn and pass on."""
        rgb = frame.rgb.copy()
        number = self._number_of(frame.stamp.seq)
        if number is not None:
            burnt_code.burn(rgb, number)
        self._sink.write(RawFrame(frame.stamp, rgb))

    def close(self, complete: bool) -> None:
        """The sink's."""
        self._sink.close(complete)


def measure(
    source: str, sink: str, style: str, size: tuple[int, int], fps: int, seconds: float, device: str = ""
) -> dict[str, Any]:
    """Measure one kind of source with one kind of sink. device: that of the virtual camera."""
    port = free_port()
    server = None
    watch = watch_rtsp
    match sink:
        case "rtsp":
            server = rtsp_server(port)
            url, far = f"rtsp://127.0.0.1:{port}/live#patience=60", f"rtsp://127.0.0.1:{port}/watch"
        case "rtmp":
            url = f"rtmp://127.0.0.1:{port}/live/key"
            far, watch = url, watch_listener
            url += "#patience=60"
        case "srt":
            url, far = f"srt://127.0.0.1:{port}#patience=60", f"srt://127.0.0.1:{port}?mode=listener"
            watch = watch_listener
        case "virtualcam":
            url, far, watch = f"virtualcam:{device},fps={fps}", device, watch_camera
        case _:
            url, far, watch = f"page:{port}", f"127.0.0.1:{port}", watch_page
    ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    arguments = (far, size, seconds + LONGER_S, theirs)
    viewer = multiprocessing.get_context("spawn").Process(target=watch, args=arguments)

    def watch_now() -> None:
        viewer.start()
        table = {"rtmp": "/proc/net/tcp", "srt": "/proc/net/udp"}.get(sink)
        while table and f":{port:04X} " not in Path(table).read_text():  # these have to be there first
            time.sleep(0.1)
        if sink == "virtualcam":
            assert ours.poll(READY_S) and ours.recv() == READY, "the camera's reader does not come up"

    try:
        opened = functools.partial(CAMERAS[source], fps=fps, seconds=seconds)
        camera, notes = drive(url, style, size, opened, watch_now)
        seen: Seen = ours.recv() if ours.poll(30) else []
        viewer.join(10)
    finally:
        viewer.kill()
        if server is not None:
            end(server)
    return {"source": source, "sink": sink, "style": style, **figures(camera, seen), "notes": notes}


def drive(
    url: str, style: str, size: tuple[int, int], opened: Callable[..., Camera | RtspCamera], watch: Callable[[], None]
) -> tuple[Camera | RtspCamera, list[str]]:
    """Send pictures for a time, directly or through the graph."""
    if style == "empty":
        camera = opened(size)
        sink = open_sink(url, camera.info, size)
        watch()
        camera.watched.set()
        while (frame := camera.read()) is not None:
            sink.write(frame)
        sink.close(True)
        camera.close()
        return camera, sink.notes
    # Here, not above: the sinks alone need no torch, which takes minutes to load in an emulated machine.
    from warpfuse.graph.plan.config import validate
    from warpfuse.graph.runtime.context import prepare
    from warpfuse.graph.runtime.endpoints import Endpoints
    from warpfuse.graph.runtime.thread_run import ThreadRun

    config = validate({"source": "pattern:", "sinks": [url], "size": f"{size[0]}x{size[1]}", "workers": "one"})
    context = prepare(config, size, lambda line: None)
    camera = opened(context.size)

    def sink_of(url: str) -> BurnIn:
        return BurnIn(open_sink(url, camera.info, context.size), camera.number_of)

    ends = Endpoints(lambda: camera, sink_of, True, rewind=False)
    running = ThreadRun(context, ends)
    try:
        running.open()
        running.start()
        watch()
        camera.watched.set()
        return camera, list(running.wait().warnings)
    finally:
        running.close()
        context.close()


def main() -> None:
    """Measure; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sinks", nargs="+", default=SINKS, choices=[*SINKS, "virtualcam"])
    parser.add_argument("--device", default="", metavar="/dev/videoN", help="of virtualcam; else the first there is")
    parser.add_argument("--source", default="camera", choices=CAMERAS, help="in this process, or behind an RTSP server")
    parser.add_argument("--style", nargs="+", default=["empty", "embedded"], choices=["empty", "embedded"])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--size", default="640x360", help="of the empty style")
    parser.add_argument("--styled-size", default="320x192", help="of the embedded one")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--styled-fps", type=int, default=5, help="what the machine can keep up with")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if "virtualcam" in options.sinks:
        try:
            options.device = options.device or find_output()
            check(f"virtualcam:{options.device}")
        except SinkError as error:
            raise SystemExit(str(error)) from None
    rows = []
    for style in options.style:
        text, fps = (options.size, options.fps) if style == "empty" else (options.styled_size, options.styled_fps)
        width, height = (int(side) for side in text.split("x"))
        for sink in options.sinks:
            row = measure(options.source, sink, style, (width, height), fps, options.seconds, options.device)
            shown = {key: value for key, value in row.items() if key != "samples"}
            print(json.dumps({**shown, "size": text, "fps": fps}), flush=True)
            rows.append(row)
    if options.plot:
        plot(rows, options.plot)
    print(json.dumps({"bench": "latency", "rows": [{k: v for k, v in row.items() if k != "samples"} for row in rows]}))


if __name__ == "__main__":
    main()
