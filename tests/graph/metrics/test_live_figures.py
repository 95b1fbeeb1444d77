"""The figures of a live run add up whenever they are asked for, on a machine that has too much to do."""

import contextlib
import subprocess
import sys
import threading

import pytest
from support.waiting import until

from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import open_run

BUSY = 4  # processes that never wait, beside the run


@pytest.fixture
def load():
    """The machine has too much to do."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY)]
    yield
    for process in busy:
        process.kill()
        process.wait()


@pytest.fixture
def under_way(exact_bundle, tmp_path, monkeypatch, short_folder):
    """under_way(**keys) -> a live run of a pattern that frames of are dropped of, started."""
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    monkeypatch.setenv("WARPFUSE_SHM", str(tmp_path))
    with contextlib.ExitStack() as undo:

        def start(**keys):
            live = {"source": "pattern:96x64@200,live=1,frames=100000", "sinks": ["null:"], "bundle": exact_bundle}
            run = open_run(validate({**live, "prompt": "noisy", **keys}), undo)
            run.start()
            ended = threading.Thread(target=run.wait)
            ended.start()
            undo.callback(ended.join, 60)
            undo.callback(run.stop)
            return run

        yield start


def adds_up(stats, before):
    """Every frame that came in is out, dropped or under way, none is counted back, and no count is below 0."""
    frames = stats.frames
    assert frames.into + frames.repeated == frames.out + frames.dropped + frames.under_way, stats
    assert frames.dropped == sum(stats.drops.values()), stats
    assert min(frames.into, frames.out, frames.dropped, frames.under_way, *stats.drops.values()) >= 0, stats
    assert before is None or (frames.into >= before.frames.into and frames.out >= before.frames.out), stats
    if frames.out >= 2:
        assert stats.seconds > 0 and stats.fps > 0, "a run under way has a time and a rate"


@pytest.mark.parametrize("workers", ["one", "auto", "stages"])
def test_frames_add_up_at_every_moment_of_a_live_run_under_load(under_way, load, workers):
    run = under_way(workers=workers)
    before = None
    asked = 0

    def looked():
        nonlocal before, asked
        stats = run.stats()
        adds_up(stats, before)
        before, asked = stats, asked + 1
        return stats.frames.out >= 40 and stats.frames.dropped > 0 and asked >= 100

    until(looked, "40 frames that were shown, and some that were dropped")
    run.pause()
    until(lambda: adds_up(run.stats(), before) or run.stats().drops["paused"] > 3, "frames dropped in a pause")
    run.resume()
    until(looked, "it goes on")
    run.stop()
