"""A live source is read all the time, and only its newest frame is kept."""

import itertools
import select
import threading

import pytest
from support.machines import Counting

from warpfuse.graph.runtime.capture import Capture
from warpfuse.graph.runtime.realtime import RealTime
from warpfuse.stages.errors import SourceLost


class Gated(Counting):
    """Gives as many frames as the test lets through, then says that it waits."""

    def __init__(self, frames):
        super().__init__(frames)
        self.gate, self.waits = threading.Semaphore(0), threading.Semaphore(0)

    def read(self):
        self.waits.release()
        self.gate.acquire()
        return super().read()

    def let(self, frames):
        self.gate.release(frames)
        for _ in range(frames):
            assert self.waits.acquire(timeout=10)


def readable(capture):
    return bool(select.select([capture.fd], [], [], 0)[0])


def test_the_newest_frame_is_taken_and_those_before_it_are_counted():
    source, ticks = Gated(1000), itertools.count(1)
    capture = Capture(source, lambda: next(ticks))
    capture.start()
    assert source.waits.acquire(timeout=10) and capture.take() is None and not readable(capture)
    source.let(3)
    assert readable(capture)
    frame = capture.take()
    assert (frame.stamp.seq, frame.stamp.arrived_ns, capture.dropped, capture.read) == (2, 3, 2, 3)
    assert capture.take() is None and not readable(capture)
    source.let(1)
    assert capture.take().stamp.seq == 3 and capture.dropped == 2
    source.gate.release(1000)
    capture.close()
    assert source.closed


@pytest.mark.parametrize("error", [None, SourceLost("gone")])
def test_the_end_and_a_loss_wake_who_waits(error):
    source = Counting(0)
    if error is not None:
        source.read = lambda: (_ for _ in ()).throw(error)
    capture = Capture(source, lambda: 1)
    capture.start()
    assert select.select([capture.fd], [], [], 10)[0]
    assert capture.ended and capture.error is error and capture.take() is None
    capture.close()


def test_a_recording_in_real_time_waits_for_each_frames_time_and_never_for_what_is_late():
    now, waits = [1_000], []

    def wait(seconds):
        waits.append(round(seconds * 1000))
        now[0] += round(seconds * 1e9)

    source = RealTime(Counting(5), lambda: now[0], wait)
    assert source.info.live
    for late_ms in (0, 10, 50, 0, 0):
        source.read()
        now[0] += late_ms * 1_000_000
    assert waits == [40, 30, 30] and source.read() is None
