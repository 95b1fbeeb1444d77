"""A live source: few frames on their way at once, whatever its rate; in a process of its own too."""

import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import prepare
from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.thread_run import ThreadRun
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.stage import VideoInfo

SHOWN = 40


class Flood:
    """Pictures as fast as they are read, without an end."""

    warning = None
    info = VideoInfo(64, 48, Fraction(25), Fraction(1, 25), live=True)

    def __init__(self):
        self.count = 0

    def read(self):
        self.count += 1
        return RawFrame(Stamp(self.count - 1, self.count), np.full((48, 64, 3), self.count % 256, np.uint8))

    def close(self):
        pass


class Until:
    """A sink that ends the run after so many pictures."""

    def __init__(self, stop, shown):
        self.notes, self.seen, self._stop, self._shown = [], [], stop, shown

    def write(self, frame):
        self.seen.append(frame.stamp.seq)
        if len(self.seen) == self._shown:
            self._stop.set()

    def close(self, complete):
        pass


def most_on_their_way(bundle, shown=SHOWN, live=True, **keys):
    """The most frames that were between the source and the way out at once; and the run's figures and numbers."""
    config = validate({"source": "flood", "sinks": ["here"], "bundle": bundle, "size": "64x48", **keys})
    context = prepare(config, (64, 48), say=lambda line: None)
    lock, now, most = threading.Lock(), [0], [0]

    def count(step):
        def tap(frame):
            with lock:
                now[0] += step
                most[0] = max(most[0], now[0])

        return tap

    stop = threading.Event()
    sink = Until(stop, shown)
    ends = Endpoints(Flood, lambda url: sink, live, rewind=False, taps={"source": count(1), "download": count(-1)})
    running = ThreadRun(replace(context, stop=stop), ends)
    try:
        running.open()
        running.start()
        stats = running.wait()
    finally:
        running.close()
        context.close()
    return most[0], stats, sink.seen


STREAM = {"steps": 3, "stages": {"predict": {"stream": True}}}


@pytest.mark.parametrize(
    "keys, most", [({}, 2), ({"fusion": 0}, 2), ({"in_flight": 1}, 1), ({"in_flight": 5}, 5), (STREAM, 4)]
)
def test_no_more_are_on_their_way_than_are_allowed(exact_bundle, keys, most):
    seen, stats, numbers = most_on_their_way(exact_bundle, workers="one", **keys)
    assert seen == most, "allowed, and used"
    assert numbers == sorted(set(numbers)) and len(numbers) >= SHOWN
    assert stats.frames.into + stats.frames.repeated == stats.frames.out + stats.frames.dropped
    assert stats.drops["late"] == stats.frames.dropped > 0, "what the flood brought meanwhile"


@pytest.mark.parametrize("keys", [{}, STREAM])
def test_as_many_frames_come_to_the_sink_as_were_asked_for(exact_bundle, keys):
    """Whatever the source has brought meanwhile: what is dropped is none of them."""
    _, stats, numbers = most_on_their_way(exact_bundle, workers="one", frames=SHOWN - 7, **keys)
    assert len(numbers) == stats.frames.out == SHOWN - 7 and not stats.interrupted
    assert stats.frames.dropped > 0 and stats.frames.into > SHOWN - 7


def test_nothing_piles_up_in_a_thousand_frames(exact_bundle):
    """So latency is what two frames take, after a thousand as at first."""
    seen, _, numbers = most_on_their_way(exact_bundle, shown=1000, workers="one", fusion=0)
    assert seen == 2 and len(numbers) >= 1000


@pytest.mark.parametrize("keys", [{"in_flight": 2}, {"in_flight": 2, "fusion": 0}, {}])
def test_a_file_has_so_few_on_their_way_only_if_that_is_asked_for(exact_bundle, keys):
    seen, stats, numbers = most_on_their_way(exact_bundle, live=False, workers="one", **keys)
    assert seen == 2 if keys else seen > 2
    assert numbers == list(range(stats.frames.into)) and stats.frames.dropped == 0, "and waits for them"
