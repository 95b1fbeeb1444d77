"""Answers requests about a graph of several processes, itself or by asking the worker that knows."""

import threading
import time
from collections.abc import Callable, Sequence

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.control.messages import (
    Applied,
    Control,
    Denied,
    Done,
    Figures,
    GetStats,
    Pause,
    Request,
    Resume,
    Snapshot,
    shown,
)
from warpfuse.graph.control.messages import Set as SetKeys
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.live_settings import LiveSettings
from warpfuse.graph.processes import protocol
from warpfuse.graph.processes.worker_handle import Member, home_of


class Switchboard:
    """Of one thread. `serve` when the socket of `control` is readable, `heard` when a worker has said something.

    control  none: nobody may ask
    stats    the figures so far
    stop     ends the run when it is set
    version  number of the newest settings
    paused   the source is held
    """

    def __init__(
        self,
        control: Control | None,
        members: Sequence[Member],
        settings: LiveSettings,
        *,
        stats: Callable[[], Stats],
        stop: threading.Event,
    ) -> None:
        self.control = control
        self.version = 0
        self.paused = False
        self._members, self._settings, self._stats, self._stop = members, settings, stats, stop
        self._begun_s = time.monotonic()
        self._asked: list[tuple[list[bytes], type[protocol.Word]]] = []

    @property
    def keys(self) -> dict[str, object]:
        """The newest settings, as a worker is told them."""
        return self._settings.config.model_dump(mode="json")

    def serve(self) -> None:
        """Take every request that has come."""
        if self.control is not None:
            for to, request in self.control.requests():
                self._take(self.control, to, request)

    def heard(self, word: protocol.Begun | protocol.Picture) -> None:
        """What a worker was asked for; the oldest who asked for it is answered."""
        reply = Applied(word.version, word.seq) if isinstance(word, protocol.Begun) else shown(word.png)
        for waiting in self._asked:
            if isinstance(word, waiting[1]) and self.control is not None:
                self.control.reply(waiting[0], reply)
                self._asked.remove(waiting)
                return

    def publish_to(self, member: Member) -> None:
        """Tell a worker the newest settings again."""
        member.send(protocol.Add(self.version, self.keys))
        if "source" in member.nodes:
            member.send(protocol.Begin(self.version))

    def close(self) -> None:
        """Answer nothing more."""
        if self.control is not None:
            self.control.close()

    def _take(self, control: Control, to: list[bytes], request: Request) -> None:
        match request:
            case GetStats():
                workers = {member.name: list(member.nodes) for member in self._members}
                control.reply(to, Figures(self._stats().to_dict(), time.monotonic() - self._begun_s, workers))
                return
            case SetKeys():
                try:
                    self._settings.changed(request.keys)
                except WarpfuseError as error:
                    control.reply(to, Denied(str(error)))
                    return
                self._publish()
                self._asked.append((to, protocol.Begun))
                return
            case Snapshot():
                self._asked.append((to, protocol.Picture))
                home_of(self._members, "sink_1").send(protocol.Snap())
                return
            case Pause() | Resume():
                self.paused = isinstance(request, Pause)
                for member in self._members:
                    member.send(protocol.Pause(self.paused))
            case _:
                self._stop.set()
        control.reply(to, Done())

    def _publish(self) -> None:
        """New settings, to every worker, then to the source. A worker that is down gets them with its part."""
        self.version += 1
        new = protocol.Add(self.version, self.keys)
        for member in self._members:
            member.send(new)
        home_of(self._members, "source").send(protocol.Begin(self.version))
