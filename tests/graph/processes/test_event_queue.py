"""Words of many threads reach the one that has the line, which is woken for them."""

import select
import threading

import pytest

from warpfuse.graph.processes import protocol
from warpfuse.graph.processes.event_queue import EventQueue


@pytest.fixture
def outbox():
    made = EventQueue()
    yield made
    made.close()


def rings(outbox):
    return bool(select.select([outbox.fd], [], [], 0)[0])


def test_a_word_wakes_who_waits_until_it_is_taken(outbox):
    assert not rings(outbox), "the control: nothing was put"
    outbox.put(protocol.Said("a"))
    outbox.put(protocol.Said("b"))
    assert rings(outbox)
    assert [word.line for word in outbox.taken()] == ["a", "b"]
    assert not rings(outbox) and list(outbox.taken()) == []


def test_more_words_than_the_bell_holds_are_all_taken(outbox):
    texts = [str(number) for number in range(70_000)]  # a pipe holds 65,536 strokes
    thread = threading.Thread(target=lambda: [outbox.put(protocol.Said(text)) for text in texts])
    thread.start()
    thread.join()
    assert [word.line for word in outbox.taken()] == texts
