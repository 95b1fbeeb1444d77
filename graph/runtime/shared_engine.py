"""One network for several streams: whoever finds it free takes along the rows that others have ready.

Note: gathering without a gatherer. A stage that wants the network queues its rows. If nobody uses it, the stage makes
the call itself, for its own rows and for all that wait, up to the batch; else it waits until somebody made it for it.
So rows meet while the network is busy; a stream without a frame is not in the queue, and nobody waits for it. A lone
stream calls the network in its own thread, as if it were its own.

Note: patience. Two streams that take turns never meet. Where a call costs the same for one row and for many, it pays to
wait a little for those that shared one of the last two calls and are about to ask again; for nobody else, and not
beyond `patience_s`. So a stream that stalls is waited for twice at most.

Fair by the queue: a stage has one entry in it at most, the oldest is always served next, and the others go with it in
their order as long as they fit. So between two turns of one stream every other that was waiting has had one.
"""

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from warpfuse.engine.contract import Engine, TensorSpec
from warpfuse.engine.cuda_streams import current_stream, reads, wrote
from warpfuse.engine.device import Event
from warpfuse.engine.rows import fixed_batch, joined, run_rows

Feed = Mapping[str, Tensor]

_ROUND = 2  # calls back: who shared one of them is about to ask again


@dataclass(slots=True, eq=False)
class _Request:
    """Rows that wait for the network. written: event behind the feed, on a card; answered: behind the outputs."""

    client: "EngineClient"
    feed: Feed
    kind: tuple[object, ...]
    rows: int
    written: Event | None
    outputs: Feed | None = None
    error: Exception | None = None
    answered: Event | None = None

    @property
    def over(self) -> bool:
        return self.outputs is not None or self.error is not None


class SharedEngine:
    """A network that several stages call, each through a `client` of its own, from any thread.

    most        rows of several clients in one call, at most; none: as many as wait. Never more than the network's batch
    patience_s  how long a call may wait for those that are about to ask
    calls       made of the network; rows: asked for in them
    """

    def __init__(self, engine: Engine, most: int | None = None, patience_s: float = 0.0) -> None:
        self.patience_s = patience_s
        self.calls = 0
        self.rows = 0
        self._engine = engine
        self._most = most
        self._served: dict[EngineClient, int] = {}
        self._groups = 0
        self._turn = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._busy = self._closed = False
        self._left: Event | None = None

    @property
    def engine(self) -> Engine:
        """The network."""
        return self._engine

    @property
    def waiting(self) -> int:
        """Stages that wait for their turn."""
        return len(self._waiting)

    def client(self) -> "EngineClient | None":
        """For one more stage; None: the network has been closed, which the last client does."""
        client = EngineClient(self)
        with self._turn:
            if self._closed:
                return None
            self._served[client] = -_ROUND
        return client

    def leave(self, client: "EngineClient") -> None:
        """A client goes."""
        with self._turn:
            del self._served[client]
            self._closed = last = not self._served
            self._turn.notify_all()  # nobody waits for it any more
        if last:
            self._engine.close()

    def run(self, client: "EngineClient", feed: Feed) -> Feed:
        """What the network gives for these rows; the caller's own memory. Raises what the network raised for them."""
        kind = tuple((name, x.dtype, x.shape[1:]) for name, x in sorted(feed.items()))
        rows = next(iter(feed.values())).shape[0]
        request = _Request(client, feed, kind, rows, wrote(self._engine.device))
        with self._turn:
            self._waiting.append(request)
            if self.patience_s:
                self._turn.notify_all()
        while True:
            with self._turn:
                while self._busy and not request.over:
                    self._turn.wait()
                if request.over:
                    break
                self._busy = True
            try:
                self._serve(self._next_group())
            finally:
                with self._turn:
                    self._busy = False
                    self._turn.notify_all()
        if request.error is not None:
            raise request.error
        assert request.outputs is not None
        reads(request.outputs.values(), request.answered, current_stream(self._engine.device))
        return request.outputs

    def _next_group(self) -> list[_Request]:
        """The oldest request and those that can go with it; they leave the queue."""
        if self._left is not None:
            # A card's queue is deep: rows have to gather here instead, while it is at work. And the call before was
            # launched on another stage's stream, into the same memory.
            self._left.synchronize()
        with self._turn:
            limits = [n for n in (fixed_batch(self._engine), self._most) if n is not None]
            most = min(limits, default=None)
            if self.patience_s:
                self._turn.wait_for(lambda: self._all_here(most), self.patience_s)
            first, rows, group = self._waiting[0], 0, list[_Request]()
            for request in self._waiting:
                if request.kind != first.kind:
                    continue  # rows of another size: a call of their own, when they are the oldest
                rows += request.rows
                if group and most is not None and rows > most:
                    break
                group.append(request)
            self._groups += 1
            for request in group:
                self._waiting.remove(request)
                self._served[request.client] = self._groups
        return group

    def _all_here(self, most: int | None) -> bool:
        """Nothing more is to be expected, or would fit."""
        waiting = {request.client for request in self._waiting}
        full = most is not None and sum(request.rows for request in self._waiting) >= most
        return full or all(client in waiting for client, at in self._served.items() if at > self._groups - _ROUND)

    def _serve(self, group: Sequence[_Request]) -> None:
        """Answer requests, together; where that fails one by one, so that it fails for the one to blame alone."""
        try:
            self._call(group)
        except Exception as error:  # noqa: BLE001  whatever it is, it is raised in the thread that asked
            if len(group) == 1:
                group[0].error = error
                return
            for request in group:
                self._serve([request])

    def _call(self, group: Sequence[_Request]) -> None:
        stream = current_stream(self._engine.device)
        for request in group:
            reads(request.feed.values(), request.written, stream)
        rows = sum(request.rows for request in group)
        batch = fixed_batch(self._engine)
        given = run_rows(self._engine, joined([request.feed for request in group]), batch)
        self.calls, self.rows = self.calls + math.ceil(rows / (batch or rows)), self.rows + rows
        start, outputs = 0, []
        for request in group:  # copied: the engine's memory belongs to the next caller
            outputs.append({name: x[start : start + request.rows].clone() for name, x in given.items()})
            start += request.rows
        self._left = wrote(self._engine.device)
        for request, own in zip(group, outputs, strict=True):
            request.answered, request.outputs = self._left, own


class EngineClient:
    """A shared network as one stage sees it: an `Engine` that takes any number of rows. Outputs are the caller's."""

    def __init__(self, shared: SharedEngine) -> None:
        engine = shared.engine
        self.inputs, self.outputs = _any_rows(engine.inputs), _any_rows(engine.outputs)
        self.backend, self.device = engine.backend, engine.device
        self._shared = shared

    def __call__(self, inputs: Feed) -> Feed:
        """Run these rows, together with those of others."""
        return self._shared.run(self, inputs)

    def close(self) -> None:
        """Leave the network."""
        self._shared.leave(self)


def _any_rows(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=(None, *spec.shape[1:])) for spec in specs)
