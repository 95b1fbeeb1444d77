import select
import threading

import pytest

from warpfuse.stages.timing import Latest, Waker


@pytest.fixture
def waker():
    made = Waker()
    yield made
    made.close()


def awake(waker):
    return bool(select.select([waker.fd], [], [], 0)[0])


def test_the_newest_is_taken_and_the_others_are_counted():
    latest = Latest()
    assert [latest.put(value) for value in range(5)] == [None, 0, 1, 2, 3], "what was replaced is handed back"
    assert (latest.take(), latest.received, latest.skipped) == (4, 5, 4)
    assert latest.take() is None


def test_what_is_discarded_is_counted():
    latest = Latest()
    assert latest.discard() is None and latest.skipped == 0
    latest.put("old")
    assert (latest.discard(), latest.skipped, latest.take()) == ("old", 1, None)


def test_every_value_is_taken_or_skipped_whoever_is_faster():
    latest, taken = Latest(), []

    def write():
        for value in range(5000):
            latest.put(value)
        latest.close()

    writer = threading.Thread(target=write)
    writer.start()
    while not latest.over:
        value = latest.take(None)
        if value is not None:
            taken.append(value)
    writer.join()
    assert len(taken) + latest.skipped == 5000 and taken == sorted(set(taken)) and taken[-1] == 4999


def test_put_waiting_loses_nothing():
    latest, taken = Latest(), []
    writer = threading.Thread(target=lambda: ([latest.put_waiting(value) for value in range(1000)], latest.close()))
    writer.start()
    while not latest.over:
        value = latest.take(None)
        if value is not None:
            taken.append(value)
    writer.join()
    assert taken == list(range(1000)) and latest.skipped == 0


def test_closing_frees_both_sides():
    latest, answers = Latest(), []
    latest.put(0)
    writer = threading.Thread(target=lambda: answers.append(latest.put_waiting(1)))
    writer.start()
    latest.close()
    writer.join()
    assert answers == [False] and latest.take(None) == 0 and latest.take(None) is None and latest.over


def test_a_taker_that_polls_is_awake_while_a_value_lies_there_and_from_the_end_on(waker):
    latest = Latest(waker)
    assert not awake(waker), "control: nothing was put"
    latest.put(1)
    latest.put(2)
    assert awake(waker)
    latest.take()
    assert not awake(waker)
    latest.put(3)
    latest.close()
    latest.take()
    assert awake(waker), "the end is to be seen"


def test_a_taker_that_polls_misses_no_value(waker):
    latest, taken = Latest(waker), []

    def write():
        for value in range(5000):
            latest.put(value)
        latest.close()

    writer = threading.Thread(target=write)
    writer.start()
    while not latest.over:
        assert select.select([waker.fd], [], [], 60)[0], "a value or the end came without waking"
        value = latest.take()
        if value is not None:
            taken.append(value)
    writer.join()
    assert len(taken) + latest.skipped == 5000 and taken[-1] == 4999


def test_a_waker_takes_more_strokes_than_its_pipe_holds_and_is_cleared_of_all(waker):
    for _ in range(70_000):  # a pipe holds 65,536
        waker.wake()
    assert awake(waker)
    waker.clear()
    assert not awake(waker)
