"""From a control to the first picture that shows it: the next picture, or the K-th behind a stream batch of K."""

import contextlib
import queue
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from support.waiting import until

from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import prepare
from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.thread_run import ThreadRun
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.stage import VideoInfo

PERIOD_MS = 40
SHAPE = (64, 48)


class Steps:
    """A run over a clock that is moved by hand; each step is a picture of the source, a period after the one before."""

    def __init__(self, undo, **keys):
        self.now_ns, self.number, self.shown = 1_000_000_000, 0, []
        self._pictures = queue.SimpleQueue()
        self.info = VideoInfo(*SHAPE, Fraction(25), Fraction(1, 1_000_000_000), live=True)
        self.warning, self.notes = None, []
        config = validate(
            {"source": "here", "sinks": ["here"], "size": SHAPE, "workers": "one", "in_flight": 8, **keys}
        )
        context = prepare(config, SHAPE, lambda line: None)
        undo.callback(context.close)
        context = replace(context, clock=lambda: self.now_ns, begun_ns=self.now_ns)
        self.run = ThreadRun(context, Endpoints(lambda: self, lambda _: self, rewind=False), temporal=True)
        undo.callback(self.run.close)
        self.run.open()
        self.run.start()
        undo.callback(self._pictures.put, None)

    def read(self):
        return self._pictures.get()

    def write(self, frame):
        self.shown.append(frame.stamp.seq)

    def close(self, complete=True):
        """Of source and sink."""

    def step(self, comes=1):
        """A period later a picture comes in, and so many come out."""
        self.now_ns += PERIOD_MS * 1_000_000
        out = len(self.shown) + comes
        rgb = np.full((SHAPE[1], SHAPE[0], 3), 90, np.uint8)
        self._pictures.put(RawFrame(Stamp(self.number, self.number * PERIOD_MS * 1_000_000), rgb))
        self.number += 1
        if comes:
            until(lambda: self.run.counts().out == out, f"picture {out}")
        else:
            until(lambda: self.run.stats().stages["predict"].count == self.number, "it is in the batch")


@pytest.fixture
def steps(exact_bundle):
    """steps(**keys) -> a run that has shown nothing yet."""
    with contextlib.ExitStack() as undo:
        yield lambda **keys: Steps(undo, bundle=exact_bundle, prompt="same", **keys)


def test_a_control_is_seen_with_the_next_picture(steps):
    under_way = steps()
    for _ in range(3):
        under_way.step()
    assert under_way.run.stats().control.count == 0, "nobody has changed anything"
    under_way.run.change({"prompt": "negative"})
    under_way.step()
    control = under_way.run.stats().control
    assert (control.count, control.max_ms) == (1, PERIOD_MS)
    under_way.step()
    assert under_way.run.stats().control.count == 1, "the first picture, and no other"


@pytest.mark.parametrize("calls", [2, 3, 4])
def test_behind_a_stream_batch_a_control_is_seen_with_the_kth_picture(steps, calls):
    under_way = steps(steps=calls, stages={"predict": {"stream": True}, "fuse": {"weight": 0}})
    for number in range(calls + 2):
        under_way.step(comes=int(number >= calls - 1))
    under_way.run.change({"prompt": "negative"})
    for _ in range(calls - 1):
        under_way.step()
        assert under_way.run.stats().control.count == 0, "what was under way is finished as it was begun"
    under_way.step()
    assert under_way.run.stats().control.max_ms == calls * PERIOD_MS


def test_a_held_frame_does_not_show_a_control(steps):
    under_way = steps(pace={"skip": 3})
    for _ in range(4):  # 0 and 3 are predicted, 1 and 2 held
        under_way.step()
    under_way.run.change({"prompt": "negative"})
    for _ in range(3):
        assert under_way.run.stats().control.count == 0
        under_way.step()
    assert under_way.run.stats().control.max_ms == 3 * PERIOD_MS


def test_each_of_several_controls_counts_from_its_own_time(steps):
    under_way = steps()
    under_way.step()
    under_way.run.change({"strength": 0.5})
    under_way.now_ns += 5_000_000
    under_way.run.change({"strength": 0.6})
    under_way.step()
    control = under_way.run.stats().control
    assert (control.count, control.max_ms) == (2, PERIOD_MS + 5)
    assert control.ms(1) == pytest.approx(PERIOD_MS, rel=0.001), "to the resolution of the histogram"


def test_the_first_picture_counts_from_the_begin_of_the_run(steps):
    under_way = steps()
    assert under_way.run.stats().first_picture_s is None
    for _ in range(2):
        under_way.step()
    assert under_way.run.stats().first_picture_s == PERIOD_MS / 1000
