"""A recorder writes beside a run: it holds up a file, never a live source, and a fault of its own stays its own."""

import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.stage import VideoInfo
from warpfuse.web.recorder import Recorder

INFO = VideoInfo(64, 48, Fraction(25), Fraction(1, 25))


def frame(seq, first=100):
    return RawFrame(Stamp(seq, (first + seq) * 40_000_000), np.full((48, 64, 3), seq, np.uint8))


class Slow:
    """A sink that writes when it is let."""

    def __init__(self):
        self.go, self.written, self.closed = threading.Event(), [], []

    def write(self, one):
        self.go.wait()
        self.written.append(one.stamp.seq)

    def close(self, complete):
        self.closed.append(complete)


@pytest.fixture
def slow(monkeypatch):
    sink = Slow()
    monkeypatch.setattr("warpfuse.web.recorder.open_sink", lambda *_: sink)
    yield sink
    sink.go.set()


def test_a_recording_starts_at_time_0_and_holds_every_frame(tmp_path):
    recorder = Recorder(str(tmp_path / "out.mp4"), INFO, (64, 48), lossless=True)
    for seq in range(30):
        recorder.write(frame(seq))
    recorder.close()
    recorder.close()
    recorder.write(frame(30))
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [one.time for one in container.decode(video=0)]
    assert len(times) == 30 and times[0] == 0 and times[-1] == pytest.approx(29 / 25)
    assert (recorder.frames, recorder.dropped, recorder.error) == (30, 0, None)


def test_a_live_run_is_not_held_up_by_a_slow_encoder(tmp_path, slow):
    recorder = Recorder(str(tmp_path / "out.mp4"), INFO, (64, 48), lossless=False)
    for seq in range(100):
        recorder.write(frame(seq))  # returns although nothing is written yet
    assert recorder.dropped >= 90
    slow.go.set()
    recorder.close()
    assert len(slow.written) == recorder.frames == 100 - recorder.dropped and slow.closed == [True]
    assert slow.written == sorted(slow.written)


def test_a_file_waits_for_the_encoder(tmp_path, slow):
    recorder = Recorder(str(tmp_path / "out.mp4"), INFO, (64, 48), lossless=True)
    writer = threading.Thread(target=lambda: [recorder.write(frame(seq)) for seq in range(50)])
    writer.start()
    slow.go.set()
    writer.join()
    recorder.close()
    assert slow.written == list(range(50)) and recorder.dropped == 0


def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path, slow, monkeypatch):
    def full(one):
        raise SinkLost("out.mp4: the disk is full")

    monkeypatch.setattr(slow, "write", full)
    recorder = Recorder(str(tmp_path / "out.mp4"), INFO, (64, 48), lossless=True)
    for seq in range(50):
        recorder.write(frame(seq))
    recorder.close()
    assert "disk is full" in str(recorder.error) and slow.closed == [False]


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(SinkError):
        Recorder(str(tmp_path / "none" / "out.mp4"), INFO, (64, 48), lossless=True)
    recorder = Recorder(str(tmp_path / "empty.mp4"), INFO, (64, 48), lossless=True)
    recorder.close()
    assert "no frame arrived" in str(recorder.error) and not list(tmp_path.iterdir())
