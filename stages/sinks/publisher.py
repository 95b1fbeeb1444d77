"""The thread that publishes a stream: it connects, sends the newest pictures, and reconnects after a loss."""

import logging
import random
import threading
import time
from fractions import Fraction
from typing import Literal

from warpfuse.engine.redact import redact
from warpfuse.stages.sinks.address import Address
from warpfuse.stages.sinks.latest_picture import LatestPicture
from warpfuse.stages.sinks.live_encoder import LiveEncoder
from warpfuse.stages.sinks.relay import Gone, Relay
from warpfuse.stages.sinks.stream_sound import SoundBuffer
from warpfuse.stages.timing import Backoff

State = Literal["CONNECTING", "LIVE", "RECONNECTING", "LOST", "CLOSED"]

_CONNECT_S = 10.0
_TAKE_S = 0.2
_FIRST_S, _MOST_S = 0.5, 30.0  # bounds of the pauses between connections
_HEALTHY_S = 10.0  # after a connection of this length the pauses start again at their shortest
_FIRST_PAUSE_S = 2.0  # longest pause before the first connection, since a user may be waiting for it
_log = logging.getLogger(__name__)


class Publisher(threading.Thread):
    """Publishes the pictures put into `pictures` until it is closed. Only this thread waits for the peer.

    state        CONNECTING before the first connection, LIVE during one, RECONNECTING after a loss, LOST for good,
                 CLOSED at the end
    sent         number of pictures sent
    connections  number of connections made
    lost         a line for the user, once `state` is LOST
    """

    def __init__(
        self,
        address: Address,
        pictures: LatestPicture,
        size: tuple[int, int],
        fps: Fraction,
        heard: SoundBuffer | None = None,
    ) -> None:
        """heard: the sound to send beside the pictures."""
        super().__init__(name="wf:publish", daemon=True)
        self._address, self._pictures, self._size, self._fps = address, pictures, size, fps
        self._heard = heard
        self._name = redact(address.url)
        self._backoff = Backoff(_FIRST_S, _MOST_S, random.random)
        self._leaving = threading.Event()
        self._changed = threading.Condition()
        self.state: State = "CONNECTING"
        self.sent = self.connections = 0
        self.lost: str | None = None

    @property
    def reconnects(self) -> int:
        """Number of connections made after the first."""
        return max(0, self.connections - 1)

    def wait_for(self, *states: State, timeout: float) -> bool:
        """Wait at most `timeout` seconds until `state` is one of these. False when it is not."""
        with self._changed:
            return self._changed.wait_for(lambda: self.state in states, timeout)

    def leave(self) -> None:
        """End without sending the rest. `pictures` has to be closed as well."""
        self._leaving.set()

    def run(self) -> None:
        """The function of the thread."""
        begun = time.monotonic()
        try:
            while not self._pictures.closed:
                attempt = time.monotonic()
                why = self._connection()
                if why is None:
                    break
                now = time.monotonic()
                held = now - attempt if self.state == "LIVE" else 0.0
                late = not self.connections and now - begun > self._address.settings.patience
                if why.final or late:
                    verb = "refused" if why.final else f"no connection within {self._address.settings.patience:g} s"
                    self._lose(f"{verb}: {why}")
                    return
                self._to("RECONNECTING" if self.connections else "CONNECTING", str(why))
                if held >= _HEALTHY_S:
                    self._backoff.reset()
                pause = self._backoff.failed()
                self._leaving.wait(pause if self.connections else min(pause, _FIRST_PAUSE_S))
            self._to("CLOSED")
        except Exception as error:  # noqa: BLE001  (ends the thread; the next `write` raises it)
            self._lose(f"{type(error).__name__}: {error}")

    def _connection(self) -> Gone | None:
        """One connection from its begin to its end. Returns why it was lost; None if it was ended here."""
        self._pictures.discard()
        relay = Relay(self._address)
        complete = False
        try:
            picture = None
            while picture is None:
                picture = self._pictures.take(_TAKE_S)
                if picture is None and self._pictures.closed:
                    return None
            encoder = LiveEncoder(relay, self._size, self._fps, self._address.settings, self._heard)
            start_ns = picture.due_ns
            encoder.write(picture.rgb, 0, key=True, pts_ns=picture.pts_ns)
            self._wait_for(relay)
            self.connections += 1
            self.sent += 1
            self._to("LIVE")
            key = True  # viewers that have joined since the connection began start with the next picture
            while not self._leaving.is_set():
                picture = self._pictures.take(_TAKE_S)
                if picture is not None:
                    encoder.write(picture.rgb, picture.due_ns - start_ns, key, picture.pts_ns)
                    self.sent += 1
                    key = False
                elif self._pictures.closed:
                    encoder.close()
                    complete = True
                    return None
                relay.listen()
        except Gone as gone:
            return gone
        finally:
            relay.close(complete)
        return None

    def _wait_for(self, relay: Relay) -> None:
        deadline = time.monotonic() + _CONNECT_S
        while not relay.live:
            if self._leaving.is_set():
                raise Gone("closed while it was connecting")
            if time.monotonic() > deadline:
                raise Gone(f"the peer did not answer within {_CONNECT_S:g} s")
            relay.listen(_TAKE_S)

    def _lose(self, why: str) -> None:
        self.lost = f"{self._name}: {why}"
        self._to("LOST", why)

    def _to(self, state: State, why: str = "") -> None:
        if state != self.state:
            with self._changed:
                self.state = state
                self._changed.notify_all()
            _log.info("%s: %s%s", self._name, state, f" ({why})" if why else "")
