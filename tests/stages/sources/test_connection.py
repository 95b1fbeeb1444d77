"""The state machine of a connection, with a hand-turned clock: no thread, no socket, no waiting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.sources.connection import Connection, Patience, State
from warpfuse.stages.sources.faults import TRIES, Broken, Fault

S = 1_000_000_000
PERIOD = S // 25
LATE, EARLY = (lambda: 1.0), (lambda: 0.0)


def lost_network():
    return Broken(Fault.NETWORK, "connection refused")


def live(patience=Patience(), random=LATE):  # noqa: B008  (frozen)
    connection = Connection(0, patience, random)
    connection.opened(S, PERIOD)
    return connection


def test_silence_is_a_stall_and_a_picture_ends_it():
    connection = live()
    connection.tick(2 * S - 1)
    assert connection.state is State.LIVE
    connection.tick(2 * S)
    assert connection.state is State.STALLED and connection.reason == "no picture for 1.0 s"
    connection.picture(4 * S)
    assert connection.state is State.LIVE and connection.stalled_ns == 3 * S and connection.reconnects == 0


def test_a_slow_camera_is_given_three_periods():
    connection = Connection(0, Patience(stall=1), LATE)
    connection.opened(0, 2 * S)
    connection.tick(6 * S - 1)
    assert connection.state is State.LIVE
    connection.tick(6 * S)
    assert connection.state is State.STALLED


def test_a_source_is_lost_after_one_try_at_least():
    connection = Connection(0, Patience(first=1), LATE)
    connection.tick(5 * S)
    assert connection.state is State.CONNECTING, "the thread that connects was late"
    connection.broken(5 * S, lost_network())
    assert connection.state is State.LOST and connection.reason == "connection refused"


def test_pauses_double_up_to_the_longest_and_start_anew_when_healthy():
    connection, now = live(Patience(least=1, most=8, healthy=10)), 2 * S
    pauses = []
    for _ in range(5):
        connection.broken(now, lost_network())
        pauses.append((connection.attempt_ns - now) / S)
        now = connection.attempt_ns
    assert pauses == [1, 2, 4, 8, 8]
    connection.opened(now, PERIOD)
    connection.picture(now + 9 * S)
    connection.broken(now + 9 * S, lost_network())
    assert connection.attempt_ns - (now + 9 * S) == 8 * S, "nine seconds are not ten"
    connection.opened(now, PERIOD)
    connection.picture(now + 10 * S)
    connection.broken(now + 10 * S, lost_network())
    assert connection.attempt_ns - (now + 10 * S) == S


@given(st.floats(0, 1), st.integers(1, 40))
def test_every_pause_is_within_its_bounds(draw, failures):
    patience = Patience(least=0.5, most=30, total=1e9)
    connection, now = live(patience, lambda: draw), 2 * S
    for _ in range(failures):
        connection.broken(now, lost_network())
        assert 0.04 <= (connection.attempt_ns - now) / S <= 30
        now = connection.attempt_ns


@pytest.mark.parametrize("fault", list(Fault))
def test_each_fault_is_tried_as_often_as_it_deserves(fault):
    connection, now, tries = live(), 2 * S, 0
    while connection.state is not State.LOST and tries < 30:
        connection.broken(now, Broken(fault, "why"))
        tries += 1
    assert tries == TRIES.get(fault, 30)
    if fault in TRIES:
        assert connection.state is State.LOST and connection.reason == "why"


def test_faults_of_a_class_count_in_a_row_only():
    connection = live()
    for k in range(10):
        now = (k + 1) * 20 * S
        connection.broken(now, Broken(Fault.UNKNOWN, "no such stream"))
        connection.opened(now + S, PERIOD)
        connection.picture(now + 12 * S)
    assert connection.state is State.LIVE and connection.reconnects == 10


def test_patience_ends_sooner_before_the_first_picture():
    patience = Patience(first=5, total=100)
    for connection, limit in ((Connection(0, patience, EARLY), 5 * S), (live(patience, EARLY), 101 * S)):
        connection.broken(2 * S, lost_network())
        connection.tick(limit - 1)
        assert connection.state is not State.LOST
        connection.tick(limit)
        assert connection.state is State.LOST and connection.reason == "connection refused"


def test_changes_nobody_fetches_do_not_fill_the_memory():
    connection = live(Patience(total=1e9))
    for k in range(1000):
        connection.broken(k * 100 * S, lost_network())
        connection.opened(k * 100 * S + S, PERIOD)
    assert len(connection.changes) == 100 and connection.entered[State.RECONNECTING] == 1000


events = st.lists(st.tuples(st.sampled_from(["opened", "picture", "broken", "tick"]), st.integers(0, 5 * S)))


@given(events)
def test_whatever_happens_stale_time_only_grows_and_lost_is_for_ever(events):
    connection, now, stale, lost = Connection(0, Patience(total=30), LATE), 0, 0, False
    for event, later in events:
        now += later
        if lost or (event == "picture" and not connection.ever_live):
            event = "tick"  # whoever drives it connects first, and stops when it is lost
        if event == "opened":
            connection.opened(now, PERIOD)
        elif event == "picture":
            connection.picture(now)
        elif event == "broken":
            connection.broken(now, lost_network())
        else:
            connection.tick(now)
        lost = lost or connection.state is State.LOST
        assert not lost or connection.state is State.LOST
        assert connection.stale_ns(now) >= stale
        stale = connection.stale_ns(now)
