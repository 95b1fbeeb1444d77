import threading

import numpy as np
import pytest

from warpfuse.stages.sinks.latest_picture import LatestPicture

SIZE = (8, 4)


def flat(level: int) -> np.ndarray:
    return np.full((4, 8, 3), level, np.uint8)


def test_the_newest_is_taken_and_what_it_replaced_is_counted() -> None:
    box = LatestPicture(SIZE)
    for level in (1, 2, 3):
        box.put(flat(level), level)
    taken = box.take()
    assert taken is not None
    assert (taken.number, taken.due_ns, taken.rgb[0, 0, 0]) == (3, 3, 3)
    assert box.take() is None
    assert (box.received, box.dropped) == (3, 2)


@pytest.mark.parametrize("puts", range(1, 8))
def test_a_picture_stays_what_it_was_until_the_next_is_taken(puts: int) -> None:
    box = LatestPicture(SIZE)
    box.put(flat(100), 0)
    held = box.take()
    for level in range(puts):
        box.put(flat(level), 0)
    assert held is not None
    assert np.all(held.rgb == 100)


def test_the_graph_may_use_its_memory_again() -> None:
    box, rgb = LatestPicture(SIZE), flat(7)
    box.put(rgb, 0)
    rgb[:] = 99
    taken = box.take()
    assert taken is not None
    assert np.all(taken.rgb == 7)


def test_closing_wakes_who_waits() -> None:
    box = LatestPicture(SIZE)
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(box.take(60)))
    waiting.start()
    box.close()
    waiting.join(10)
    assert taken == [None]


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 8, 3\) were agreed on, got \(8, 4, 3\)"):
        LatestPicture(SIZE).put(np.zeros((8, 4, 3), np.uint8), 0)
