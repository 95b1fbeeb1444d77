import threading

from warpfuse.stages.sources.newest import Newest


def test_the_newest_is_taken_and_the_others_are_counted():
    newest = Newest()
    for value in range(5):
        newest.put(value)
    assert newest.take(0) == 4 and newest.skipped == 4
    assert newest.take(0) is None


def test_every_value_is_taken_or_skipped_whoever_is_faster():
    newest, taken = Newest(), []

    def write():
        for value in range(5000):
            newest.put(value)
        newest.close()

    writer = threading.Thread(target=write)
    writer.start()
    while not newest.over:
        value = newest.take(None)
        if value is not None:
            taken.append(value)
    writer.join()
    assert len(taken) + newest.skipped == 5000 and taken == sorted(set(taken)) and taken[-1] == 4999


def test_put_waiting_loses_nothing():
    newest, taken = Newest(), []
    writer = threading.Thread(target=lambda: ([newest.put_waiting(value) for value in range(1000)], newest.close()))
    writer.start()
    while not newest.over:
        value = newest.take(None)
        if value is not None:
            taken.append(value)
    writer.join()
    assert taken == list(range(1000)) and newest.skipped == 0


def test_closing_frees_both_sides():
    newest, answers = Newest(), []
    newest.put(0)
    writer = threading.Thread(target=lambda: answers.append(newest.put_waiting(1)))
    writer.start()
    newest.close()
    writer.join()
    assert answers == [False] and newest.take(None) == 0 and newest.take(None) is None and newest.over
