"""The receiver of a live source: a thread that connects, reads every picture, and reconnects."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SourceLost
from warpfuse.stages.sources.connection import Connection, Patience, State
from warpfuse.stages.sources.faults import EXPECTED, Broken, Fault, broken
from warpfuse.stages.sources.session import Connect, Nature, ReceivedPicture, Session
from warpfuse.stages.timing import ClockMap, Latest

_PIECES = 1000  # most pieces of sound that wait for the reader; a picture brings one
_LEAVING_S = 1.0  # longest time that `close` waits for the thread, which may be in FFmpeg until its timeout
_KEPT = 100  # most remarks kept until they are fetched
_LATE_NS, _EARLY_NS = 1_000_000_000, 60_000_000_000  # for segments: network delay, and more than a playlist's length


@dataclass(frozen=True, slots=True)
class Arrived:
    """A received picture. at_ns: time of arrival; epoch: number of its connection; nature: that of its stream."""

    picture: ReceivedPicture
    at_ns: int
    epoch: int
    nature: Nature


class Receiver:
    """Keeps the newest picture of a connection, and reconnects. Thread-safe, except that one thread calls `take`.

    url      name of the source in messages, where its secrets are removed
    remarks  what was repaired or missing in a clip, after its end
    """

    def __init__(
        self, url: str, connect: Connect, patience: Patience, clock: Callable[[], int], jitter: Callable[[], float]
    ) -> None:
        self.shown = redact(url)
        self._connect, self._patience, self._clock = connect, patience, clock
        self._lock = threading.Lock()  # guards the connection's state, which both threads read and change
        self._connection = Connection(clock(), patience, jitter)
        self._newest: Latest[Arrived] = Latest()
        self._sound: deque[tuple[int, bytes]] = deque(maxlen=_PIECES)
        self._closing = threading.Event()
        self._session: Session | None = None
        self._crash: BaseException | None = None
        self._told_live = False
        self.remarks: list[str] = []
        self._said: deque[str] = deque(maxlen=_KEPT)
        self._noted: dict[str, bool] = {}  # notes of connections, and whether `news` has given them
        self._thread = threading.Thread(target=self._run, name=f"wf:receive {self.shown}", daemon=True)
        self._thread.start()

    def take(self, timeout_s: float | None) -> Arrived | None:
        """Wait for a picture that was not taken yet; the newest one. None after `timeout_s`, and at the end (`over`).

        Raises the error that ended the thread, if one did.
        """
        arrived = self._newest.take(timeout_s)
        if arrived is None:
            self.check()
        return arrived

    def sound(self) -> list[tuple[int, bytes]]:
        """Take the pieces of sound: (number of its connection, piece), oldest first."""
        return [self._sound.popleft() for _ in range(len(self._sound))]

    def check(self) -> None:
        """Raise the error that ended the thread, if one did. It is a bug, not a fault of the connection."""
        if self._crash is not None:
            raise self._crash

    @property
    def over(self) -> bool:
        """There is no picture to take, and none will come."""
        return self._closing.is_set() or self._newest.over

    @property
    def skipped(self) -> int:
        """Number of pictures that were replaced by newer ones before they were taken."""
        return self._newest.skipped

    def look(self) -> tuple[State, int]:
        """The present state, and the time, ns, until it counts as stalled without a picture (0 unless LIVE)."""
        with self._lock:
            now_ns = self._clock()
            self._connection.tick(now_ns)
            state, session = self._connection.state, self._session
            if session is not None and self._connection.mute(now_ns):
                session.interrupt()  # for sessions without a timeout; the thread then reconnects
            return state, max(0, self._connection.stalls_ns - now_ns) if state is State.LIVE else 0

    @property
    def lost(self) -> SourceLost | None:
        """Why the source is gone for good; None while it is not."""
        with self._lock:
            connection = self._connection
            if connection.state is not State.LOST:
                return None
            what = "the source is lost" if connection.ever_live else "the source cannot be reached"
            return SourceLost(f"{self.shown}: {what}: {connection.reason}. {connection.remedy}".rstrip())

    def news(self) -> list[str]:
        """A line for the user for each state change since the last call, except LOST, and for each new note."""
        with self._lock:
            changes = [*self._connection.changes]
            self._connection.changes.clear()
            lines = [f"{self.shown}: {note}" for note, given in self._noted.items() if not given]
            self._noted = dict.fromkeys(self._noted, True)
            lines += [f"{self.shown}: {remark}" for remark in self._said]
            self._said.clear()
        for _, state, reason in changes:
            again = " again" if state is State.LIVE and self._told_live else ""
            self._told_live |= state is State.LIVE
            if state is not State.LOST:
                lines.append(f"{self.shown}: {state.value}{again}" + (f" ({reason})" if reason else ""))
        return lines

    def report(self) -> dict[str, Any]:
        """Figures of the connection, as plain types and without secrets."""
        with self._lock:
            connection = self._connection
            return {
                "state": connection.state.value,
                "entered": {state.value: connection.entered[state] for state in State if connection.entered[state]},
                "reconnects": connection.reconnects,
                "skipped": self._newest.skipped,
                "stale_ms": round(connection.stale_ns(self._clock()) / 1e6),
                "last_fault": connection.fault.value if connection.fault is not None else None,
            }

    def interrupt(self) -> None:
        """End the stream: a `take` that waits returns None at once."""
        self._closing.set()
        self._newest.close()
        session = self._session
        if session is not None:
            session.interrupt()

    def close(self) -> None:
        """End the connection. A thread that is blocked in FFmpeg closes it later, when the read times out."""
        self.interrupt()
        self._thread.join(_LEAVING_S)

    def _run(self) -> None:
        epoch = 0
        try:
            while not self._pause() and not self._one_connection(epoch):
                epoch += 1
        except BaseException as error:  # noqa: BLE001  (raised where pictures are taken)
            self._crash = error
        finally:
            self._newest.close()

    def _pause(self) -> bool:
        """Wait until the next try to connect. True: there will be none."""
        with self._lock:
            now_ns = self._clock()
            self._connection.tick(now_ns)
            lost, wait_ns = self._connection.state is State.LOST, self._connection.attempt_ns - now_ns
        return lost or self._closing.wait(max(0, wait_ns) / 1e9)

    def _one_connection(self, epoch: int) -> bool:
        """Connect, and read until the connection breaks. True: a clip has ended, or the receiver is closing."""
        finite = False
        try:
            session = self._session = self._connect()
            try:
                finite = session.nature.finite
                return self._receive(session, epoch)
            finally:
                self._session = None
                session.close()
        except EXPECTED as error:
            if self._closing.is_set():  # it was ended here
                return True
            with self._lock:
                if finite:  # another connection would start the clip from its beginning
                    self._connection.lose(self._clock(), broken(error))
                else:
                    self._connection.broken(self._clock(), broken(error))
        return False

    def _receive(self, session: Session, epoch: int) -> bool:
        nature, due = session.nature, ClockMap(_LATE_NS, _EARLY_NS)
        if nature.note:
            with self._lock:
                self._noted.setdefault(nature.note, False)
        seen_ns = self._clock()
        seen = False
        for picture in session.pictures():
            if self._closing.is_set():
                return True
            if isinstance(picture, str):
                with self._lock:
                    (self.remarks if nature.finite else self._said).append(picture)
                continue
            if picture is None:
                if self._clock() - seen_ns > self._patience.silence * 1e9:
                    raise Broken(Fault.FOREIGN, "it sends, but no picture that can be decoded")
                continue
            if nature.bursts and picture.sent_ns is not None:  # HLS sends whole segments: wait until a picture is due
                now_ns = self._clock()
                if self._closing.wait(max(0, due(picture.sent_ns, now_ns) - now_ns) / 1e9):
                    return True
            seen_ns = self._clock()
            with self._lock:
                if seen:
                    self._connection.picture(seen_ns)
                else:
                    self._connection.opened(seen_ns, round(1e9 / nature.rate))
            seen = True
            if picture.sound:
                self._sound.append((epoch, picture.sound))
            arrived = Arrived(picture, seen_ns, epoch, nature)
            if not nature.finite:
                self._newest.put(arrived)
            elif not self._newest.put_waiting(arrived):
                return True
        if nature.finite and seen:
            return True
        raise Broken(Fault.ENDED, "the other side ended the stream")
