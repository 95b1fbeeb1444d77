"""A trace of the calls of every stage, in the Chrome trace format: Perfetto and chrome://tracing open it."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from warpfuse.engine.files import write_whole

_MOST = 200_000  # calls that a worker keeps: some 20 minutes of ten stages at 15 fps


class Span(NamedTuple):
    """One call of a stage: the frame's number, and when the call began and ended, ns by the run's clock."""

    stage: str
    seq: int
    begun_ns: int
    ended_ns: int


class Track:
    """The newest calls of a worker's stages. Thread-safe.

    most  number of calls kept
    """

    def __init__(self, most: int = _MOST) -> None:
        self._spans: deque[Span] = deque(maxlen=most)  # append is atomic

    def add(self, stage: str, seq: int, begun_ns: int, ended_ns: int) -> None:
        """Record one call."""
        self._spans.append(Span(stage, seq, begun_ns, ended_ns))

    def spans(self) -> list[Span]:
        """The calls recorded, in order of their ends."""
        return list(self._spans)


def to_chrome(tracks: Mapping[str, Sequence[Span]]) -> dict[str, object]:
    """The trace of all workers as JSON data: a process for each worker, a thread for each stage. Times in us."""
    events: list[dict[str, object]] = []
    origin = min((span.begun_ns for spans in tracks.values() for span in spans), default=0)
    for pid, (worker, spans) in enumerate(tracks.items(), start=1):
        events.append({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": worker}})
        threads: dict[str, int] = {}
        for span in spans:
            if span.stage not in threads:
                threads[span.stage] = len(threads) + 1
                name = {"name": span.stage}
                events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": threads[span.stage], "args": name})
            events.append(
                {
                    "ph": "X",
                    "name": f"{span.stage} {span.seq}",
                    "cat": "stage",
                    "pid": pid,
                    "tid": threads[span.stage],
                    "ts": (span.begun_ns - origin) / 1000,
                    "dur": (span.ended_ns - span.begun_ns) / 1000,
                    "args": {"seq": span.seq},
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_chrome(path: Path, tracks: Mapping[str, Sequence[Span]]) -> None:
    """Write the trace, whole or not at all."""
    write_whole(path, json.dumps(to_chrome(tracks)).encode())
