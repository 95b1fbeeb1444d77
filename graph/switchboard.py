"""Answers requests about a graph of several processes, itself or by asking the worker that knows."""

import threading
import time
from collections.abc import Callable, Sequence

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph import orders
from warpfuse.graph.control import (
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
from warpfuse.graph.control import Set as SetKeys
from warpfuse.graph.live_settings import LiveSettings
from warpfuse.graph.member import Member, home_of
from warpfuse.graph.meters import Stats


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
        self._asked: list[tuple[list[bytes], type[orders.Word]]] = []

    @property
    def keys(self) -> dict[str, object]:
        """The newest settings, as a worker is told them."""
        return self._settings.config.model_dump(mode="json")

    def serve(self) -> None:
        """Take every request that has come."""
        if self.control is not None:
            for to, request in self.control.requests():
                self._take(self.control, to, request)

    def heard(self, word: orders.Begun | orders.Picture) -> None:
        """What a worker was asked for; the oldest who asked for it is answered."""
        reply = Applied(word.version, word.seq) if isinstance(word, orders.Begun) else shown(word.png)
        for waiting in self._asked:
            if isinstance(word, waiting[1]) and self.control is not None:
                self.control.reply(waiting[0], reply)
                self._asked.remove(waiting)
                return

    def publish_to(self, member: Member) -> None:
        """Tell a worker the newest settings again."""
        member.send(orders.Add(self.version, self.keys))
        if "source" in member.nodes:
            member.send(orders.Begin(self.version))

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
                self._asked.append((to, orders.Begun))
                return
            case Snapshot():
                self._asked.append((to, orders.Picture))
                home_of(self._members, "sink_1").send(orders.Snap())
                return
            case Pause() | Resume():
                self.paused = isinstance(request, Pause)
                for member in self._members:
                    member.send(orders.Pause(self.paused))
            case _:
                self._stop.set()
        control.reply(to, Done())

    def _publish(self) -> None:
        """New settings, to every worker, then to the source. A worker that is down gets them with its part."""
        self.version += 1
        new = orders.Add(self.version, self.keys)
        for member in self._members:
            member.send(new)
        home_of(self._members, "source").send(orders.Begin(self.version))
