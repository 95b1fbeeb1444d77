"""One network shared by several streams. A call combines the rows of all streams that wait for it.

Note: batching without a batching thread. A stage puts its rows into a queue. If the network is free, the stage makes a
call for all rows in the queue, its own among them, up to the batch. If it is busy, the stage waits until its rows have
been processed or the network is free. So rows meet while the network is busy, and no call waits for a stream without a
frame. A lone stream calls the network in its own thread, as if it did not share it.

Note: patience. Two streams that take turns never meet in the queue. Where a call of many rows costs the same as a call
of one, waiting a little pays. A call then waits up to `patience_s` for the streams that shared one of the last two
calls, since they are expected to ask again. So at most two calls wait for a stream that has stalled.

The queue is fair. A stage has at most one entry in it. The oldest entry is always served next, and the others join it
in their order as long as they fit. So between two turns of one stream, every other waiting stream has had a turn.
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

_ROUND = 2  # a client of one of the last two calls is expected to ask again


@dataclass(slots=True, eq=False)
class _Request:
    """Rows that wait for the network.

    kind      names, types and shapes of the inputs; only requests of the same kind share a call
    written   on a card, the event after which the feed is written
    answered  on a card, the event after which the outputs are written
    """

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
    """A network that several stages call, each through a `client` of its own. Thread-safe.

    most        most rows of several clients in one call; None: all that wait. A network's fixed batch also limits them
    patience_s  longest time a call waits for clients that are expected to ask soon
    calls       number of calls made
    rows        number of rows in them
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
        """Number of requests in the queue."""
        return len(self._waiting)

    def client(self) -> "EngineClient | None":
        """A new client, for one more stage; None if the network was closed when its last client left."""
        client = EngineClient(self)
        with self._turn:
            if self._closed:
                return None
            self._served[client] = -_ROUND
        return client

    def leave(self, client: "EngineClient") -> None:
        """Remove a client. The network is closed with the last one."""
        with self._turn:
            del self._served[client]
            self._closed = last = not self._served
            self._turn.notify_all()  # a call may be waiting for this client's rows
        if last:
            self._engine.close()

    def run(self, client: "EngineClient", feed: Feed) -> Feed:
        """Run the network on these rows. The outputs are the caller's own memory. Raises what the network raised."""
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
        """Take the oldest request, and all that fit into the same call, out of the queue."""
        if self._left is not None:
            # Else calls would pile up in the card's queue, and rows never meet in this one. Besides, the last call used
            # the same memory, on another stage's stream.
            self._left.synchronize()
        with self._turn:
            limits = [n for n in (fixed_batch(self._engine), self._most) if n is not None]
            most = min(limits, default=None)
            if self.patience_s:
                self._turn.wait_for(lambda: self._all_here(most), self.patience_s)
            first, rows, group = self._waiting[0], 0, list[_Request]()
            for request in self._waiting:
                if request.kind != first.kind:
                    continue  # another shape: it gets a call of its own when it is the oldest
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
        """Waiting longer is useless: the call is full, or all expected clients have asked."""
        waiting = {request.client for request in self._waiting}
        full = most is not None and sum(request.rows for request in self._waiting) >= most
        return full or all(client in waiting for client, at in self._served.items() if at > self._groups - _ROUND)

    def _serve(self, group: Sequence[_Request]) -> None:
        """Process requests in one call. If it fails, repeat them one by one, so that only the faulty one fails."""
        try:
            self._call(group)
        except Exception as error:  # noqa: BLE001  (raised again in the thread of the request)
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
        for request in group:  # copied, since the next call overwrites the engine's memory
            outputs.append({name: x[start : start + request.rows].clone() for name, x in given.items()})
            start += request.rows
        self._left = wrote(self._engine.device)
        for request, own in zip(group, outputs, strict=True):
            request.answered, request.outputs = self._left, own


class EngineClient:
    """A shared network as an `Engine` for one stage. It takes any number of rows. The caller owns the outputs."""

    def __init__(self, shared: SharedEngine) -> None:
        engine = shared.engine
        self.inputs, self.outputs = _any_rows(engine.inputs), _any_rows(engine.outputs)
        self.backend, self.device = engine.backend, engine.device
        self._shared = shared

    def __call__(self, inputs: Feed) -> Feed:
        """Run the network on these rows, if possible together with rows of other clients."""
        return self._shared.run(self, inputs)

    def close(self) -> None:
        """Leave the shared network."""
        self._shared.leave(self)


def _any_rows(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=(None, *spec.shape[1:])) for spec in specs)
