"""A virtual camera whose networks are gone: the source's picture by `passthrough`, the last one by `hold`."""

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.machines import Counting

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.crossfade import Timed
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.processes.process_run import ProcessRun
from warpfuse.graph.run import run
from warpfuse.graph.runtime.context import prepare_source
from warpfuse.graph.runtime.failures import Faults
from warpfuse.graph.runtime.lane import Lane
from warpfuse.graph.runtime.source_runner import SourceRunner
from warpfuse.stages.sinks import virtualcam
from warpfuse.stages.transfer.download import Download

# In every worker: styled pictures are all 77, and the camera is a file that takes a letter for each picture shown.
WITNESS = """
import os
import numpy as np
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.transfer.download import Download
from warpfuse.stages.sinks import virtualcam
class Screen:
    def __init__(self, device, *_):
        self.file = os.open(device, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def send(self, rgb):
        kinds = {16: b"d", 77: b"s"}  # dark, styled
        os.write(self.file, kinds.get(int(rgb[0, 0, 0]), b"r") if rgb.min() == rgb.max() else b"r")
    def close(self):
        os.close(self.file)
virtualcam.V4l2Output = Screen
download = Download.__call__
def marked(self, frame):
    raw = download(self, frame)
    return RawFrame(raw.stamp, np.full_like(raw.rgb, 77))
Download.__call__ = marked
"""
KEYS = {"source": "pattern:96x64@25,frames=100000", "prompt": "noisy", "fusion": 0.0, "realtime": True, "fps": 25}


@pytest.fixture
def screen(tmp_path, monkeypatch, short_folder):
    """The file behind the camera."""
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    monkeypatch.setenv("WARPFUSE_SHM", str(tmp_path))
    monkeypatch.setattr(virtualcam, "require_output", lambda device: None)
    return tmp_path / "screen"


@pytest.mark.parametrize(
    "on_fault, how", [("passthrough", signal.SIGKILL), ("passthrough", signal.SIGSTOP), ("hold", signal.SIGKILL)]
)
def test_the_camera_lives_on_while_the_networks_are_dead(screen, exact_bundle, monkeypatch, on_fault, how):
    """Main is killed or stopped, and started again after a while; what was shown is compared phase by phase."""
    wanted = {"passthrough": "r", "hold": "s"}[on_fault]
    phases = {"styled": 0, "dead": 0, "again": 0}
    turn = ProcessRun.turn

    def turning(self):
        turn(self)
        shown = screen.read_text() if screen.exists() else ""
        main = next(handle for handle in self._pool.handles if handle.name == "main")
        if not phases["styled"] and "s" in shown:
            phases["styled"] = len(shown)
            os.kill(self._pool.processes.pid("main"), how)
        elif phases["styled"] and not phases["dead"]:
            # Held back until the camera has shown two seconds of it: a fault counts from one second on.
            main.due_s += 0.2 if main.state == "down" else 0.0
            if main.state == "down" and shown.count(wanted, phases["styled"]) >= 50:
                phases["dead"], main.due_s = len(shown), 0.0
        elif (
            phases["dead"]
            and not phases["again"]
            and self._epochs.number == 2
            and self._shown()
            and shown.endswith("sssss")
        ):
            phases["again"] = len(shown)
            self._stop.set()

    monkeypatch.setattr(ProcessRun, "turn", turning)
    run(validate({**KEYS, "bundle": exact_bundle, "sinks": f"virtualcam:{screen}", "on_fault": on_fault}))
    shown = screen.read_text()
    dead = shown[phases["styled"] : phases["dead"]]
    assert ("r" in shown[phases["styled"] :]) == (on_fault == "passthrough") and "d" not in dead
    assert phases["again"] > phases["dead"] > phases["styled"] > 0, json.dumps(phases)


def test_in_one_process_it_is_bridged_too(screen, exact_bundle, monkeypatch):
    stop, hung, levels, release = threading.Event(), threading.Event(), [], threading.Event()
    download = Download.__call__

    def hanging(self, frame):
        raw = download(self, frame)
        if raw.stamp.seq >= 5 and not release.is_set():
            hung.set()
            release.wait(60)
        raw.rgb[:] = 77
        return raw

    class Screen:
        def __init__(self, *_):
            pass

        def send(self, rgb):
            kind = "s" if (rgb == 77).all() else "d" if (rgb == 16).all() else "r"
            levels.append(kind)
            if kind == "r" and hung.is_set():
                assert np.ptp(rgb) > 0
                release.set()
            elif kind == "s" and release.is_set():
                stop.set()

        def close(self):
            pass

    monkeypatch.setattr(Download, "__call__", hanging)
    monkeypatch.setattr(virtualcam, "V4l2Output", Screen)
    keys = {**KEYS, "bundle": exact_bundle, "sinks": f"virtualcam:{screen},on-fault=passthrough", "workers": "one"}
    run(validate(keys), stop=stop)
    text = "".join(levels)
    assert "sr" in text and text.rstrip("r").endswith("s") and "rs" in text


@pytest.mark.parametrize("paused", [True, False])
def test_nothing_passes_by_during_a_pause(paused):
    """A pause is no fault: the picture stands still. False is the control."""
    book, passed = SettingsBook(validate({})), []
    runner = SourceRunner("source", Counting(3), lambda: 1, stopped=lambda: False, book=book, live=True)
    lane = Lane([runner], Faults(1))
    runner.paused = paused
    runner.passing.append(lambda frame: passed.append(frame.stamp.seq))
    lane.start()
    lane.join(60)
    assert not lane.is_alive() and passed == ([] if paused else [0, 1, 2])


class Sounding(Counting):
    """A piece of sound with every picture, on the clock of the pictures."""

    def read(self):
        frame = super().read()
        return None if frame is None else replace(frame, sound=((0, b"piece"),))


def test_sound_passes_by_as_late_as_it_is_set_to_be_then():
    """The change comes while the second picture passes: from the third on its sound is later, whatever the clock."""
    book, shifts = SettingsBook(validate({"sound_delay": 0.3})), []
    runner = SourceRunner("source", Sounding(4), lambda: 1, stopped=lambda: False, book=book, live=True)

    def passing(frame):
        shifts.extend(shift_ns / 1e9 for shift_ns, _ in frame.sound)
        if len(shifts) == 2:
            book.publish(validate({"sound_delay": -0.5}), Timed({}, over_ns=10**10))

    runner.passing.append(passing)
    lane = Lane([runner], Faults(1))
    lane.start()
    lane.join(60)
    assert not lane.is_alive() and shifts == [0.3, 0.3, -0.5, -0.5], "at once, without a crossfade"


def test_a_file_that_waits_for_the_networks_is_refused_in_one_line():
    keys = {**KEYS, "realtime": False, "sinks": ["virtualcam:/dev/video9"], "on_fault": "passthrough"}
    with pytest.raises(ConfigError, match=r"a file waits for them.*--realtime") as refused:
        prepare_source(validate(keys))
    assert "\n" not in str(refused.value)


def test_the_key_is_short_for_what_every_camera_says(tmp_path):
    sinks = ["virtualcam:", "virtualcam:/dev/video9,on-fault=hold", str(tmp_path / "a.mp4")]
    config = validate({"source": "camera:0", "sinks": sinks, "on_fault": "passthrough"})
    assert config.sinks == ("virtualcam:,on-fault=passthrough", *sinks[1:])
    plan = plan_graph(config, live=True)
    (link,) = plan.bypasses
    assert (link.sender, link.receiver, link.policy, link.transport) == ("source", "sink_1", "latest", "shm")
    assert not plan_graph(config).bypasses, "control: a file waits, nothing passes by"
    for wrong, said in (("loop", "expected hold or passthrough"), ("passthrough", "there is none")):
        with pytest.raises(ConfigError, match=said):
            validate({"sinks": [str(Path("a.mp4"))], "on_fault": wrong})
