"""A pause: a file waits for it, a live source is read on and its frames are counted."""

import threading
from fractions import Fraction

import numpy as np
import pytest

from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.stage import VideoInfo
from warpfuse.web.gate import Gate


class Numbered:
    """Frames 0, 1, 2 ...; `after` is called with the number of each that was read."""

    warning = None
    closed = False

    def __init__(self, live, after=lambda number: None, frames=10):
        self.info = VideoInfo(2, 2, Fraction(25), Fraction(1, 25), live=live)
        self._after, self._frames, self.count = after, frames, 0

    def read(self):
        if self.count == self._frames:
            return None
        seq, self.count = self.count, self.count + 1
        self._after(seq)
        return RawFrame(Stamp(seq, seq * 40), np.full((2, 2, 3), seq, np.uint8))

    def close(self):
        self.closed = True


def numbers(frames):
    return [(frame.stamp.seq, int(frame.rgb[0, 0, 0]), frame.stamp.discontinuity) for frame in frames]


def test_an_open_gate_passes_everything_on():
    saw = []
    gate = Gate(Numbered(live=False, frames=3), threading.Event(), saw.append)
    frames = [gate.read() for _ in range(3)]
    assert numbers(frames) == [(0, 0, False), (1, 1, False), (2, 2, False)] == numbers(saw)
    assert gate.read() is None


def test_frames_of_a_live_source_that_come_in_a_pause_are_dropped_and_the_next_is_told_apart():
    gate = None

    def during(number):
        if number == 2:
            gate.pause()
        if number == 5:
            gate.resume()

    gate = Gate(Numbered(live=True, after=during), threading.Event(), lambda frame: None)
    assert numbers([gate.read() for _ in range(4)]) == [(0, 0, False), (1, 1, False), (2, 5, True), (3, 6, False)]
    assert gate.dropped == 3


def test_a_file_waits_in_a_pause_and_loses_nothing():
    source = Numbered(live=False)
    gate = Gate(source, threading.Event(), lambda frame: None)
    gate.pause()
    read = []
    reader = threading.Thread(target=lambda: read.append(gate.read()))
    reader.start()
    assert source.count == 0 and gate.paused
    gate.resume()
    reader.join()
    assert numbers(read) == [(0, 0, False)] and gate.dropped == 0


@pytest.mark.parametrize("live", [True, False])
def test_a_paused_run_can_be_stopped(live):
    stop = threading.Event()
    gate = Gate(Numbered(live, after=lambda number: stop.set()), stop, lambda frame: None)
    gate.pause()
    if not live:
        stop.set()
    assert gate.read() is None
