"""Live sources over a scripted connection: what a slow reader gets, and what happens when the connection breaks."""

import threading
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from av.video.frame import VideoFrame

from warpfuse.stages.errors import SourceError, SourceLost, Stopped
from warpfuse.stages.sources import receiver
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.display import Display
from warpfuse.stages.sources.faults import Broken, Fault, foreign
from warpfuse.stages.sources.live import LiveSource
from warpfuse.stages.sources.session import Nature, ReceivedPicture
from warpfuse.stages.timing import Latest

QUICK = Patience(first=30.0, stall=0.02, silence=0.05, least=0.001, most=0.002, total=60.0)


def numbered(index, width=32, height=16):
    """A picture that holds `index` in its colour."""
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:] = (index & 255, index >> 8, 128)
    return ReceivedPicture(VideoFrame.from_ndarray(rgb, format="rgb24"), index * 40_000_000)


def index_of(frame):
    red, green, _ = frame.rgb[0, 0].tolist()
    return red + 256 * green


class Scripted:
    """A session that gives what `script` yields; `closed` tells that it was given back."""

    def __init__(self, script, nature=Nature(Fraction(25))):  # noqa: B008  (frozen)
        self.nature = nature
        self.closed = False
        self._script = script

    def pictures(self) -> Iterator[ReceivedPicture | None]:
        yield from self._script

    def interrupt(self):
        pass

    def close(self):
        self.closed = True


def in_turn(*sessions):
    """A `connect` that makes these sessions one after the other; an exception in their place is raised."""
    left = list(sessions)

    def connect():
        session = left.pop(0)
        if isinstance(session, Exception):
            raise session
        return session

    return connect


class Camera:
    """A connection on which pictures appear when the test says so, and never wait for anybody."""

    def __init__(self):
        self.sent = 0
        self._due = 1
        self._turn = threading.Condition()

    def send(self, count):
        with self._turn:
            self._due += count
            self._turn.notify_all()
            self._turn.wait_for(lambda: self.sent == self._due)

    def stop(self):
        with self._turn:
            self._due = -1
            self._turn.notify_all()

    def script(self):
        while True:
            with self._turn:
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._due < 0 or self.sent < self._due)
                if self._due < 0:
                    return
                picture = numbered(self.sent)
            yield picture  # the receiver comes back for more only when it has stored this one
            with self._turn:
                self.sent += 1


class Fifo(Latest):
    """The control: what a reader without a newest-only place has, a queue."""

    def __init__(self):
        super().__init__()
        self._queue = deque()

    def put(self, value):
        with self._changed:
            self._queue.append(value)
            self._changed.notify_all()

    def take(self, timeout_s=0.0):
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self.closed, timeout_s)
            return self._queue.popleft() if self._queue else None


@pytest.mark.parametrize("newest_only", [True, False])
def test_a_slow_reader_is_never_behind(newest_only, monkeypatch):
    if not newest_only:
        monkeypatch.setattr(receiver, "Latest", Fifo)
    camera = Camera()
    source = LiveSource("rtsp://cam/1", in_turn(Scripted(camera.script())), patience=Patience(stall=60))
    ages = []
    try:
        source.read()
        for _ in range(1000):
            camera.send(3)  # three pictures in the time the graph takes for one
            ages.append(camera.sent - 1 - index_of(source.read()))
        skipped = source.report()["skipped"]
    finally:
        camera.stop()
        source.close()
    if newest_only:
        assert (max(ages), skipped) == (0, 2000)
    else:
        assert ages == list(range(2, 2002, 2)), "the queue makes each frame two later than the one before"


def test_what_is_held_is_the_last_picture_marked_stale_and_later_in_time():
    release = threading.Event()

    def script():
        yield numbered(1)
        release.wait()
        yield numbered(2)
        release.clear()
        release.wait()

    source = LiveSource("x", in_turn(Scripted(script())), patience=QUICK)
    first, held, again = source.read(), source.read(), source.read()
    release.set()
    frame = source.read()
    while frame.stamp.stale:
        frame = source.read()
    release.set()
    source.close()
    assert [index_of(f) for f in (first, held, again, frame)] == [1, 1, 1, 2]
    assert (first.stamp.stale, held.stamp.stale, again.stamp.stale) == (False, True, True)
    assert first.stamp.pts_ns < held.stamp.pts_ns < again.stamp.pts_ns < frame.stamp.pts_ns
    assert [f.stamp.seq for f in (first, held, again)] == [0, 1, 2]
    assert not frame.stamp.discontinuity, "the same connection went on"


def test_the_end_of_a_live_stream_is_a_loss_and_what_follows_is_a_discontinuity():
    stay = threading.Event()

    def second():
        yield numbered(2, 64, 64)
        stay.wait()

    sessions = Scripted([numbered(1)]), Scripted(second())
    source = LiveSource("x", in_turn(sessions[0], OSError(101, "Network is unreachable"), sessions[1]), patience=QUICK)
    frames = [source.read()]
    while index_of(frames[-1]) != 2:
        frames.append(source.read())
    report = source.report()
    stay.set()
    source.close()
    assert sessions[0].closed and frames[-1].stamp.discontinuity and not frames[0].stamp.discontinuity
    assert all(frame.rgb.shape == (16, 32, 3) for frame in frames), "the size of the run stays"
    assert report["reconnects"] == 1 and report["entered"]["reconnecting"] == 1


def test_a_connection_that_is_ended_here_is_not_a_broken_one():
    ended = threading.Event()

    def until_ended():
        yield numbered(1)
        ended.wait()
        raise OSError(5, "Input/output error")

    session = Scripted(until_ended())
    session.interrupt = ended.set
    source = LiveSource("x", in_turn(session), patience=Patience(stall=60))
    source.read()
    source.news()
    source.close()
    assert session.closed and source.news() == [] and source.report()["last_fault"] is None


def test_a_refusal_in_mid_stream_ends_the_run_at_once():
    source = LiveSource("x", in_turn(Scripted([numbered(1)]), Broken(Fault.DENIED, "refused")), patience=QUICK)
    assert index_of(source.read()) == 1
    while source.read() is not None:
        pass
    assert "the source is lost: refused. Check the user name" in str(source.lost)
    assert source.report()["state"] == "lost"


def test_a_clip_gives_every_frame_and_ends():
    clip = Scripted([numbered(k) for k in range(300)], Nature(Fraction(25), finite=True))
    source = LiveSource("x", in_turn(clip))
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    assert [index_of(f) for f in frames] == list(range(300)) and source.lost is None and clip.closed
    assert [f.stamp.pts_ns for f in frames] == [k * 40_000_000 for k in range(300)] and not source.info.live


def test_a_clip_that_breaks_is_lost_and_not_begun_anew():
    def script():
        yield numbered(0)
        raise OSError(104, "Connection reset by peer")

    source = LiveSource("x", in_turn(Scripted(script(), Nature(Fraction(25), finite=True))))
    assert index_of(source.read()) == 0 and source.read() is None
    assert "connection reset by peer" in str(source.lost)


def test_a_stream_of_what_cannot_be_decoded_is_lost():
    def rubbish():
        while True:
            yield None

    clock = iter(range(0, 10**15, 10_000_000))  # each look at it is 10 ms later
    sessions = [Scripted(rubbish()) for _ in range(4)]
    with pytest.raises(SourceLost, match="no picture that can be decoded"):
        patience = Patience(first=1e6, least=0.001, most=0.002)
        LiveSource("x", in_turn(*sessions), patience=patience, clock=lambda: next(clock))
    assert all(session.closed for session in sessions)


def test_a_fault_of_ours_is_raised_where_frames_are_read():
    def script():
        yield numbered(0)
        raise ZeroDivisionError

    source = LiveSource("x", in_turn(Scripted(script())))
    source.read()
    with pytest.raises(ZeroDivisionError):
        source.read()


@pytest.mark.parametrize("fitted", [True, False])
def test_what_was_opened_before_its_size_was_known_begins_with_what_is_new_then(fitted):
    """The first picture tells what the source is, and is old when the networks are loaded. False is the control."""
    three = threading.Event()

    def script():
        yield numbered(0)
        while not seen.is_set():  # until the first has been taken as the one that tells
            yield None
        yield from map(numbered, (1, 2))
        three.set()
        over.wait(60)

    seen, over = threading.Event(), threading.Event()
    source = LiveSource("x", in_turn(Scripted(script())))
    seen.set()
    assert three.wait(30)
    if fitted:
        source.fit((32, 24), None)
    frame = source.read()
    assert (index_of(frame), frame.stamp.seq) == (2 if fitted else 0, 0)
    assert frame.rgb.shape == ((24, 32, 3) if fitted else (source.info.height, source.info.width, 3))
    over.set()
    source.close()


@pytest.mark.parametrize("stopped", [True, False])
def test_a_stop_ends_the_wait_for_a_connection_and_leaves_what_cannot_be_interrupted_behind(stopped):
    """False is the control: a source that does not answer is lost when patience is out."""
    stop, answer, given_back = threading.Event(), threading.Event(), threading.Event()

    class Late(Scripted):
        def close(self):
            given_back.set()

    def connect():
        if stopped:
            stop.set()
            assert answer.wait(60)
            return Late([numbered(0)])
        raise OSError(111, "Connection refused")

    patience = Patience(first=60.0 if stopped else 0.05, least=0.001, most=0.002)
    with pytest.raises(Stopped if stopped else SourceLost):
        LiveSource("x", connect, patience=patience, stop=stop)
    assert not given_back.is_set()
    answer.set()
    assert not stopped or given_back.wait(60), "it is closed as soon as it is there"


def test_a_picture_of_nonsensical_shape_is_bad_input():
    with pytest.raises(SourceError, match="aspect ratios"):
        LiveSource("rtsp://u:p@cam", in_turn(Scripted([numbered(0, 8192, 2)])), size=(64, 8192))


def test_texts_hold_no_secrets():
    source = LiveSource("rtsp://anna:Pa55@cam/1?token=S3CRET", in_turn(Scripted([numbered(0)])), patience=QUICK)
    text = " ".join([*source.news(), str(source.report()), *(thread.name for thread in threading.enumerate())])
    source.close()
    assert "rtsp://***@cam/1?***: live" in text
    assert not any(secret in text for secret in ("anna", "Pa55", "S3CRET"))


def test_what_is_said_of_a_clip_is_its_warning_and_of_a_live_source_its_news():
    def script(end):
        yield numbered(0)
        yield "its clock jumps"
        yield numbered(1)
        yield from end

    clip = LiveSource("test:", in_turn(Scripted(script([]), Nature(Fraction(25), finite=True))))
    assert [index_of(frame) for frame in iter(clip.read, None)] == [0, 1]
    assert clip.warning == "test:: its clock jumps."
    clip.close()
    live = LiveSource("test:", in_turn(Scripted(script([numbered(2)])), Broken(Fault.DENIED, "no")), patience=QUICK)
    while live.read() is not None:
        pass
    assert "test:: its clock jumps" in live.news() and live.warning is None
    live.close()


@pytest.mark.parametrize("lasting", [False, True])
def test_a_picture_that_cannot_be_shown_is_passed_over_and_lasting_ones_end_the_source(monkeypatch, lasting):
    plain = Display.__call__

    def failing(self, frame):
        if frame.width == 34:
            raise ValueError("99 is not a valid Kind")
        return plain(self, frame)

    monkeypatch.setattr(Display, "__call__", failing)
    bad = [numbered(1, width=34)] * (200 if lasting else 3)
    session = Scripted(iter([numbered(0), *bad, numbered(2)]), Nature(Fraction(25), finite=True))
    source = LiveSource("test:", in_turn(session))
    assert index_of(source.read()) == 0
    if lasting:
        with pytest.raises(SourceLost, match="no picture can be shown any more: ValueError: 99 is not a valid Kind"):
            source.read()
    else:
        assert index_of(source.read()) == 2 and source.read() is None
    source.close()


@pytest.mark.parametrize("error", [ValueError("31 is not a valid Type"), KeyError(7), OverflowError(), MemoryError()])
def test_what_bindings_raise_of_a_stream_is_a_broken_connection(error):
    with pytest.raises(Broken) as raised, foreign():
        raise error
    assert raised.value.fault is Fault.FOREIGN and "\n" not in str(raised.value)
    assert type(error).__name__ in str(raised.value)
