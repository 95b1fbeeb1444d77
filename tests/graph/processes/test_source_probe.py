"""A source is connected once: what takes one connection and no more is read, in one process and in many."""

import os
import signal

import cv2
import numpy as np
import psutil
import pytest
from support.servers import Web

from warpfuse.engine.errors import BadInput
from warpfuse.graph import run as running
from warpfuse.graph.plan.config import validate
from warpfuse.graph.processes.source_probe import SourceProbe
from warpfuse.graph.run import run
from warpfuse.graph.runtime.context import prepare_source
from warpfuse.graph.runtime.endpoints import endpoints_of

FRAMES = 6


@pytest.fixture
def web(tmp_path, monkeypatch, short_folder):
    """A camera that serves whoever asks first."""
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    monkeypatch.setenv("WARPFUSE_SHM", str(tmp_path))
    serving = Web(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    serving.pictures, serving.once = [cv2.imencode(".jpg", noise)[1].tobytes()], True
    before = set(psutil.Process().children())  # other tests' helpers
    yield serving
    serving.close()
    assert set(psutil.Process().children()) <= before, "a process was left"
    assert not list(short_folder.glob("warpfuse/*")), "a socket was left"


def asking(web, bundle, **keys):
    return validate({"source": f"{web.url}/video.mjpg", "sinks": "null:", "bundle": bundle, "frames": FRAMES, **keys})


@pytest.mark.parametrize("workers", ["auto", "stages", "one"])
def test_one_connection_is_enough(web, exact_bundle, workers):
    stats = run(asking(web, exact_bundle, workers=workers, size="48x32"))
    assert (web.asked, stats.frames.out, stats.restarts, stats.size) == (1, FRAMES, 0, (48, 32))


def test_a_probe_is_a_connection_of_its_own(web, exact_bundle):
    """The control: whoever probes and opens is seen twice."""
    web.once, config = False, asking(web, exact_bundle)
    info, context = prepare_source(config)
    endpoints_of(config, info, context.size).source().close()
    context.close()
    assert web.asked == 2


def test_a_reader_that_dies_before_it_has_its_part_is_started_again(web, exact_bundle, monkeypatch):
    probes = []
    web.once = False
    find, prepare = SourceProbe.find, running.prepare
    monkeypatch.setattr(SourceProbe, "find", lambda self, *told: (probes.append(self), find(self, *told))[1])

    def preparing(*args, **options):
        os.kill(probes[0].processes.pid("capture"), signal.SIGKILL)
        return prepare(*args, **options)

    monkeypatch.setattr(running, "prepare", preparing)
    stats = run(asking(web, exact_bundle))
    # once, and again where an overloaded machine takes the new one for dead
    assert stats.frames.out == FRAMES and web.asked >= 2 and stats.restarts >= 1


def test_a_run_that_cannot_be_built_leaves_nothing_of_its_reader(web):
    """That no process and no folder is left is looked at by `web`."""
    with pytest.raises(BadInput, match="none-such"):
        run(asking(web, "none-such"))
    assert web.asked == 1


def test_what_the_reader_refuses_is_told_in_one_line(web, exact_bundle):
    with pytest.raises(BadInput, match="an address needs a host") as refused:
        run(asking(web, exact_bundle, source="rtsp://"))
    assert "\n" not in str(refused.value)
