"""Law: the sound of a live source goes past the networks into what is recorded, in step with the pictures."""

import math
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

import av
import msgspec
import numpy as np
import pytest
from support.peers import peer
from support.servers import free_port, need_ffmpeg

from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages, tensor_layout
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.planner import SOUND, plan_graph
from warpfuse.graph.run import open_run, run
from warpfuse.graph.runtime.endpoints import Viewer
from warpfuse.stages.frame import SoundPiece, Stamp
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.connection import Patience
from warpfuse.web.viewing import ViewerSink

FRAME = 0.04
HASTY = Patience(first=20.0, stall=0.5, silence=3.0, least=0.05, most=0.2, total=60.0)
PICTURE = "color=black:s=64x48:r=25,drawbox=c=white:t=fill:enable='lt(mod(t\\,1)\\,0.2)'"
TONE = "aevalsrc='if(lt(mod(t\\,1)\\,0.2)\\,sin(2*PI*880*t)\\,0)':s=48000"


class Flashing:
    """An ffmpeg that flashes and beeps together, once a second, for whoever connects by RTMP: one at a time."""

    def __init__(self):
        self.url = f"rtmp://127.0.0.1:{free_port()}/app/live"
        self._process = None

    def start(self):
        command = [need_ffmpeg(), "-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i", PICTURE]
        command += ["-re", "-f", "lavfi", "-i", TONE, "-t", "300", "-c:v", "libx264", "-preset", "ultrafast"]
        command += ["-tune", "zerolatency", "-g", "10", "-pix_fmt", "yuv420p", "-c:a", "aac"]
        self._process = subprocess.Popen(
            [*command, "-f", "flv", "-listen", "1", self.url], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def flashing(tmp_path, monkeypatch, short_folder):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    monkeypatch.setenv("WARPFUSE_SHM", str(tmp_path))
    sender = Flashing()
    sender.start()
    yield sender
    sender.kill()


def flashes(path):
    """When the picture turns white: the last dark one and the first white one, seconds. Those between were dropped."""
    with av.open(str(path)) as opened:
        seen = [(frame.time, frame.to_ndarray(format="gray").mean() > 128) for frame in opened.decode(video=0)]
    return [(dark, white) for (dark, was), (white, now) in pairwise(seen) if now and not was]


def beeps(path):
    """Seconds at which a tone begins."""
    times, loud = [], []
    with av.open(str(path)) as opened:
        resampler = av.AudioResampler(format="fltp", layout="mono")
        for frame in opened.decode(audio=0):
            for piece in resampler.resample(frame):
                times.append(piece.time + np.arange(piece.samples) / piece.sample_rate)
                loud.append(np.abs(piece.to_ndarray()[0]) > 0.3)
    at = np.concatenate(times)[np.concatenate(loud)]
    return [float(second) for second in at[np.concatenate([[True], np.diff(at) > 0.5])]]


def in_step(path, broken_s=math.inf):
    """How often it flashed. Asserts that each flash has its beep, within a frame."""
    flashed, met, met_half_a_second_off = compared(path, broken_s)
    assert met == flashed, (flashes(path), beeps(path))
    assert not met_half_a_second_off, "control: half a second is seen"
    return flashed


def compared(path, broken_s=math.inf, delay_s=0.0):
    """How often it flashed, how often with a beep `delay_s` later, and how often so with the beeps half a second off.

    Not judged: what is cut off at either end; the first flash behind `broken_s`, where a connection broke, for the
    clock of the new one is not settled yet; and pictures that this clock has pressed together.
    """
    seen, heard = flashes(path), beeps(path)
    unsettled = next((flash for flash in seen if flash[1] > broken_s), None)
    inner = [flash for flash in seen[:-1] if flash != unsettled]
    whole = [(dark, white) for dark, white in inner if dark > 0.3 and white - dark > FRAME / 2]

    def met(later):
        return sum(any(d - FRAME <= beep + later - delay_s <= w + FRAME for beep in heard) for d, w in whole)

    return len(whole), met(0), met(0.5)


@pytest.mark.parametrize("workers", ["one", "stages"])
def test_a_recording_has_the_sound_in_step(flashing, exact_bundle, tmp_path, workers):
    """That of a sink, and that of the control page."""
    files = [tmp_path / "a.mp4", tmp_path / "a.mkv"]
    sinks = []

    def looking(stream, info, size):
        sinks.append(ViewerSink(lambda frame: None, info, size))
        sinks[0].record(str(files[1]))
        return sinks[0]

    keys = {"sinks": [str(files[0])], "bundle": str(exact_bundle), "frames": 90, "size": "64x48"}
    config = validate({"source": flashing.url, "workers": workers, "fusion": 0.0, "prompt": "same", **keys})
    with ExitStack() as undo:
        running = open_run(config, undo, viewer=Viewer(looking, lambda stream: {}))
        running.start()
        assert running.wait().frames.out == 90
    sinks[0].recorder.close()
    assert sinks[0].recorder.error is None
    for file in files:
        assert in_step(file) >= 2


def test_a_published_stream_has_it_too_as_late_as_asked(flashing, exact_bundle, tmp_path):
    with peer("rtmp", tmp_path, sound=True) as server:
        keys = {"sinks": [server.url], "bundle": str(exact_bundle), "frames": 120, "size": "64x48"}
        run(validate({"source": flashing.url, "fusion": 0.0, "prompt": "same", "sound_delay": 0.3, **keys}))
        server.finish()
    _, met, met_half_a_second_off = compared(server.received, delay_s=0.3)
    assert met >= 2 > met_half_a_second_off, "a late picture begins the clock of a stream anew, so not each is met"


def test_it_is_in_step_again_behind_a_connection_that_broke(flashing, tmp_path):
    source = open_source(flashing.url, patience=HASTY)
    sink = open_sink(str(tmp_path / "a.mkv"), source.info, (64, 48))
    number = fresh = 0
    broken_s = None
    while fresh < 105 or broken_s is None:
        frame = source.read()
        assert frame is not None, source.lost
        for shift_ns, nut in frame.sound:
            piece = np.frombuffer(bytearray(nut), np.uint8)
            sink.hear(SoundPiece(replace(frame.stamp, seq=number, pts_ns=shift_ns), piece))
            number += 1
        sink.write(frame)
        fresh += not frame.stamp.stale
        if broken_s is None and fresh >= 60:
            flashing.kill()
            flashing.start()
            fresh, broken_s = 0, frame.stamp.pts_ns / 1e9
    source.close()
    sink.close(True)
    assert (
        source.report()["reconnects"] >= 1
        and max(flashes(tmp_path / "a.mkv"))[0] > 4
        and in_step(tmp_path / "a.mkv", broken_s) >= 4
    )


def test_only_what_may_have_sound_and_keep_it_gets_the_link(tmp_path):
    def links(source, *sinks):
        config = validate({"source": source, "sinks": sinks})
        return [link.receiver for link in plan_graph(config, live=True).bypasses if link.port == SOUND]

    camera, file, rows = "rtsp://cam/live", str(tmp_path / "a.mp4"), str(tmp_path / "%04d.png")
    assert links(camera, file, "null:", rows, str(tmp_path / "b.mkv")) == ["sink_1", "sink_4"]
    assert links(camera, "rtmp://there/live", "whip://there/live", "srt://there:1") == ["sink_1", "sink_3"]
    assert links("camera:0", file) == [] == links("screen:", file)


def test_a_piece_crosses_between_processes_byte_for_byte():
    piece = SoundPiece(Stamp(3, -5_000_000), np.arange(1000, dtype=np.uint8))
    packing = tensor_layout.pack(piece)
    content = tensor_layout.check(packing.content, packing.nbytes)
    back = tensor_layout.unpack(messages.FrameMessage(3, 0, 1, content=content), packing.tensors)
    assert isinstance(back, SoundPiece) and back.stamp == piece.stamp and np.array_equal(back.nut, piece.nut)
    for plane in (replace_plane(content, shape=(10, 100)), replace_plane(content, dtype="int8")):
        with pytest.raises(WireError, match="one plane sound"):
            tensor_layout.check(plane, packing.nbytes)


def replace_plane(content, **changed):
    return msgspec.structs.replace(content, planes=(msgspec.structs.replace(content.planes[0], **changed),))
