"""What orders the threads of the host: starting and joining them, locks, and the messages of links.

While a card is simulated the classes of `threading` are replaced, so that a lock hands on the clock of who held it
last, and conditions, events, futures and queues, which are made of locks, do too. Links by ZeroMQ hand it on with each
frame and each credit.
"""

import _thread
import contextlib
import queue
import threading
from collections import defaultdict

from support.card.order import host, merge
from warpfuse.graph.links.link import Inlet, Outlet


class _Lock:
    """A lock, or one that its owner may take again."""

    order = None

    def __init__(self, inner):
        self._inner = inner
        self._clock = {}

    def acquire(self, blocking=True, timeout=-1):
        taken = self._inner.acquire(blocking, timeout)
        if taken:
            self.order.join(host(), self._clock)
        return taken

    def release(self):
        merge(self._clock, self.order.clock(host()))
        self._inner.release()

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *error):
        self.release()

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def _release_save(self):
        merge(self._clock, self.order.clock(host()))
        if hasattr(self._inner, "_release_save"):
            return self._inner._release_save()
        self._inner.release()
        return None

    def _acquire_restore(self, state):
        if hasattr(self._inner, "_acquire_restore"):
            self._inner._acquire_restore(state)
        else:
            self._inner.acquire()
        self.order.join(host(), self._clock)

    def _is_owned(self):
        if hasattr(self._inner, "_is_owned"):
            return self._inner._is_owned()
        if self._inner.acquire(False):
            self._inner.release()
            return False
        return True


@contextlib.contextmanager
def ordered(card):
    """Inside the block threads, locks and links are made that hand on clocks; threads begin with the card's modes."""
    order = card.order
    kind = type("Lock", (_Lock,), {"order": order})
    start, join = threading.Thread.start, threading.Thread.join
    ends = {}

    def started(thread):
        begun, inner = order.clock(host()), thread.run

        def running():
            order.join(host(), begun)
            with card.modes():
                inner()
            ends[id(thread)] = order.clock(host())

        thread.run = running
        start(thread)

    def joined(thread, timeout=None):
        join(thread, timeout)
        if not thread.is_alive():
            order.join(host(), ends.get(id(thread), {}))

    with contextlib.ExitStack() as undo:
        for where, name, new in [
            (threading, "Lock", lambda: kind(_thread.allocate_lock())),
            (threading, "RLock", lambda: kind(_thread.RLock())),
            (threading.Thread, "start", started),
            (threading.Thread, "join", joined),
            (queue, "SimpleQueue", queue._PySimpleQueue),
            *_links(order),
        ]:
            undo.callback(setattr, where, name, getattr(where, name))
            setattr(where, name, new)
        yield


def _links(order):
    down, up = defaultdict(dict), defaultdict(dict)  # link -> clocks of frames, of credits
    offer, take, done, receive = Outlet.offer, Inlet.take, Inlet.done, Outlet.receive

    def offered(outlet, seq, *value):
        with order.lock:
            merge(down[outlet.plan.name], order.clock(host()))
        offer(outlet, seq, *value)

    def took(inlet):
        with order.lock:
            order.join(host(), down[inlet.plan.name])
        return take(inlet)

    def returned(inlet):
        with order.lock:
            merge(up[inlet.plan.name], order.clock(host()))
        done(inlet)

    def received(outlet):
        with order.lock:
            order.join(host(), up[outlet.plan.name])
        receive(outlet)

    return [(Outlet, "offer", offered), (Inlet, "take", took), (Inlet, "done", returned), (Outlet, "receive", received)]
