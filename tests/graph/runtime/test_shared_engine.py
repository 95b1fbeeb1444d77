"""A network that several streams share: who is served when, with whom, and whose memory the answer is."""

import threading
import time
from collections import deque

import pytest
import torch

from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import EngineError
from warpfuse.graph.runtime.shared_engine import SharedEngine

WAIT_S = 60


class Gated:
    """y = 2 x over two slots, as engines have them. A call says that it began and waits until it may go on."""

    backend, device = "test", "cpu"

    def __init__(self, batch=None):
        self.inputs = self.outputs = (TensorSpec("x", "float32", (batch, None)),)
        self.fed, self.slots, self.closed = [], {}, 0
        self.began, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, inputs):
        x = inputs["x"]
        self.inputs[0].check("gated", x)
        self.fed.append(x[:, 0].tolist())
        self.began.release()
        assert self.go.acquire(timeout=WAIT_S)
        if (x < 0).any():
            raise EngineError("no roots of negative rows")
        slot = self.slots.setdefault((len(self.fed) % 2, x.shape), torch.empty_like(x))
        return {"y": slot.copy_(2 * x)}

    def close(self):
        self.closed += 1


class Askers:
    """Threads that ask a client each, told one by one."""

    def __init__(self, shared):
        self.shared, self.threads, self.answers = shared, [], {}

    def ask(self, *rows, client=None, width=2):
        """Ask, and return once the rows wait or are being served."""
        client = client or self.shared.client()
        busy, before = bool(self.shared.engine.fed), self.shared.waiting
        feed = {"x": torch.tensor(rows, dtype=torch.float32)[:, None].repeat(1, width)}
        thread = threading.Thread(target=self._ask, args=(client, feed, rows), daemon=True)
        self.threads.append(thread)
        thread.start()
        if not busy:
            assert self.shared.engine.began.acquire(timeout=WAIT_S)
            return
        until = time.monotonic() + WAIT_S
        while self.shared.waiting == before:
            assert time.monotonic() < until, "the rows did not come into the queue"
            thread.join(0.001)

    def _ask(self, client, feed, rows):
        try:
            self.answers[rows] = client(feed)["y"]
        except Exception as error:  # noqa: BLE001
            self.answers[rows] = error

    def finish(self, calls=50):
        """Let every call go on and wait for all threads."""
        for _ in range(calls):
            self.shared.engine.go.release()
        for thread in self.threads:
            thread.join(WAIT_S)
        assert not any(thread.is_alive() for thread in self.threads)
        return self.shared.engine.fed


def asked(most=None, batch=None, rows=((1,), (2,), (3,), (4,))):
    askers = Askers(SharedEngine(Gated(batch), most))
    for one in rows:
        askers.ask(*one)
    return askers


def test_rows_that_wait_share_the_next_call():
    askers = asked()
    assert askers.finish() == [[1], [2, 3, 4]]
    assert (askers.shared.calls, askers.shared.rows) == (2, 4)


def test_everybody_gets_the_answer_to_what_was_asked():
    askers = asked(rows=((1,), (2, 5), (3,), (4, 6, 7)))
    askers.finish()
    for rows, answer in askers.answers.items():
        assert torch.equal(answer, 2 * torch.tensor(rows, dtype=torch.float32)[:, None].repeat(1, 2))


@pytest.mark.parametrize("most, calls", [(1, [[1], [2], [3], [4]]), (2, [[1], [2, 3], [4]]), (3, [[1], [2, 3, 4]])])
def test_no_call_holds_more_rows_than_may_share_it(most, calls):
    assert asked(most).finish() == calls


def test_a_network_of_a_fixed_batch_is_filled_up_with_rows_that_wait():
    askers = asked(batch=2)
    assert askers.finish() == [[1, 1], [2, 3], [4, 4]], "repeated rows fill what nobody waits for"
    assert (askers.shared.calls, askers.shared.rows) == (3, 4)
    assert askers.answers[(4,)].shape == (1, 2)


def test_rows_of_one_stage_may_be_more_than_the_batch():
    askers = asked(batch=2, rows=((1, 2, 3, 4, 5),))
    assert askers.finish() == [[1, 2], [3, 4], [5, 5]]
    assert askers.shared.calls == 3 and askers.answers[(1, 2, 3, 4, 5)][:, 0].tolist() == [2, 4, 6, 8, 10]


def test_who_comes_again_stands_behind_those_that_wait():
    """A stage that asks all the time gets one turn, then the others do: the queue is served in its order."""
    askers = Askers(SharedEngine(Gated(), most=1))
    greedy = askers.shared.client()
    askers.ask(1, client=greedy)
    askers.ask(2)
    askers.ask(3)
    engine = askers.shared.engine
    engine.go.release()  # the call of 1 ends, the next is that of 2
    assert engine.began.acquire(timeout=WAIT_S)
    askers.threads[0].join(WAIT_S)
    askers.ask(10, client=greedy)
    askers.ask(4)
    assert askers.finish() == [[1], [2], [3], [10], [4]]


@pytest.mark.parametrize("fair", [True, False])
def test_the_oldest_is_served_next(fair):
    class Stack(deque):
        append = deque.appendleft

    askers = Askers(SharedEngine(Gated(), most=1))
    if not fair:
        askers.shared._waiting = Stack()
    for row in (1, 2, 3, 4):
        askers.ask(row)
    assert askers.finish() == ([[1], [2], [3], [4]] if fair else [[1], [4], [3], [2]]), "False guards the test itself"


def test_a_stage_with_nothing_to_ask_is_not_waited_for():
    askers = asked(rows=((1,),))
    idle = [askers.shared.client() for _ in range(3)]
    assert askers.finish() == [[1]] and len(idle) == 3


@pytest.mark.parametrize("patience_s, calls", [(WAIT_S, [[1], [2, 3]]), (0, [[1], [2], [3]])])
def test_who_shared_a_call_lately_is_waited_for_a_little(patience_s, calls):
    askers = Askers(SharedEngine(Gated(), patience_s=patience_s))
    first, engine = askers.shared.client(), askers.shared.engine
    askers.ask(1, client=first)
    askers.ask(2)
    engine.go.release()
    askers.threads[0].join(WAIT_S)
    if not patience_s:
        assert engine.began.acquire(timeout=WAIT_S), "2 is served alone"
    askers.ask(3, client=first)
    assert askers.finish() == calls


@pytest.mark.parametrize("alone, waits", [(1, True), (2, False)])
def test_a_stream_that_stalls_is_waited_for_twice_at_most(alone, waits):
    engine = Gated()
    engine.go = threading.Semaphore(100)
    shared = SharedEngine(engine, patience_s=0.001)
    going, stalled, feed = shared.client(), shared.client(), {"x": torch.ones(1, 2)}
    stalled(feed)
    for _ in range(alone):
        going(feed)
    shared.patience_s = 1e6
    asking = threading.Thread(target=going, args=(feed,), daemon=True)
    asking.start()
    asking.join(0.2 if waits else WAIT_S)
    assert asking.is_alive() == waits
    if waits:  # control: until the other asks
        stalled(feed)
        asking.join(WAIT_S)
        assert not asking.is_alive() and engine.fed[-1] == [1, 1]


def test_rows_that_the_network_fails_at_fail_alone():
    askers = asked(rows=((1,), (2,), (-3,), (4,)))
    assert askers.finish() == [[1], [2, -3, 4], [2], [-3], [4]]
    assert isinstance(askers.answers[(-3,)], EngineError)
    assert [askers.answers[(n,)][0, 0] for n in (1, 2, 4)] == [2, 4, 8]


def test_rows_of_another_size_take_a_call_of_their_own():
    askers = Askers(SharedEngine(Gated()))
    for row, width in ((1, 2), (2, 2), (3, 5), (4, 2)):
        askers.ask(row, width=width)
    assert askers.finish() == [[1], [2, 4], [3]]
    assert askers.answers[(3,)].shape == (1, 5)


def test_an_answer_stays_whatever_others_ask_later():
    engine = Gated()
    engine.go = threading.Semaphore(100)
    shared = SharedEngine(engine)
    mine, others = shared.client(), shared.client()
    first = mine({"x": torch.ones(1, 2)})["y"]
    bare = engine({"x": torch.ones(1, 2)})["y"]
    for n in range(2, 5):
        others({"x": torch.full((1, 2), float(n))})
    assert torch.equal(first, torch.full((1, 2), 2.0))
    assert not torch.equal(bare, torch.full((1, 2), 2.0)), "control: the engine's own memory is written again"


def test_the_network_is_closed_with_the_last_client():
    shared = SharedEngine(Gated())
    clients = [shared.client() for _ in range(3)]
    for client in clients[:2]:
        client.close()
    assert shared.engine.closed == 0
    clients[2].close()
    assert shared.engine.closed == 1


def test_many_threads_at_once_get_their_own_answers():
    engine = Gated()
    engine.go = threading.Semaphore(10_000)
    shared, wrong = SharedEngine(engine, most=3), []

    def ask(number):
        client = shared.client()
        for turn in range(100):
            value = float(1 + number * 1000 + turn)
            if client({"x": torch.full((1, 2), value)})["y"].tolist() != [[2 * value] * 2]:
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not any(thread.is_alive() for thread in threads) and wrong == []
    assert shared.rows == 600 and max(len(rows) for rows in engine.fed) <= 3
