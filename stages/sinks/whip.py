"""A stream sent to a media server by WHIP: `whip://host:8889/live/whip`, `whips://` over HTTPS, `#token=T` behind."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.beside import unheld
from warpfuse.stages.sinks.bt709 import require_even
from warpfuse.stages.sinks.latest_picture import LatestPicture
from warpfuse.stages.sinks.playback import Playback
from warpfuse.stages.sources.faults import TRIES, Broken, Fault
from warpfuse.stages.sources.webrtc import (
    Endpoint,
    EventLoop,
    ask_for_session,
    end_session,
    new_peer,
    require_aiortc,
    take_answer,
)
from warpfuse.stages.stage import VideoInfo
from warpfuse.stages.timing import Backoff

SCHEMES: tuple[str, ...] = ("whip", "whips")

_CLOCK = Fraction(1, 90_000)
_TAKE_S = 0.2
_ANSWER_S = 5.0
_CONNECT_S = 10.0
_PATIENCE_S = 15.0  # until the first connection must stand
_FIRST_S, _MOST_S = 0.5, 30.0  # bounds of the pauses between connections
_FINISH_S = 5.0


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError for an address that is not understood, and without aiortc."""
    Endpoint.parse(url, SinkError)
    require_aiortc(url, SinkError)


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> "WhipSink":
    """Begin to send; the connection is made behind the caller's back. Raises SinkError, also for odd sizes."""
    check(url)
    require_even(redact(url), size)
    return WhipSink(redact(url), Endpoint.parse(url, SinkError), info, size, unheld(sound_from, info))


class WhipSink:
    """Sends a stream. `write` never waits for the server: while there is none, frames are dropped and counted."""

    def __init__(
        self, name: str, endpoint: Endpoint, info: VideoInfo, size: tuple[int, int], unsent: Sequence[str] = ()
    ) -> None:
        """unsent: what lies beside the picture, in words."""
        self._name, self._unsent = name, unsent
        self._playback = Playback(info)
        self._pictures = LatestPicture(size)
        self.sender = WhipSender(name, endpoint, self._pictures)
        self.sender.start()

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced before they were sent."""
        return self._pictures.dropped

    @property
    def notes(self) -> list[str]:
        """What became of the frames; and what is not sent at all."""
        reconnects = max(0, self.sender.connections - 1)
        notes = [f"{self._name}: {self.sender.sent} frames sent, {self.dropped} dropped, {reconnects} reconnects"]
        if self._unsent:
            notes.append(f"{self._name}: the picture alone is sent, not {'; '.join(self._unsent)}")
        return notes

    def write(self, frame: RawFrame) -> None:
        """Leave the frame for the sender. Raises SinkLost when the server refused for good."""
        due_ns = self._playback.due(frame)
        if self.sender.lost is not None:
            raise SinkLost(self.sender.lost)
        self._pictures.put(frame.rgb, due_ns)

    def close(self, complete: bool) -> None:
        """End the session. Raises SinkLost if nobody was ever reached."""
        self._playback.close()
        self._pictures.close()
        self.sender.leave()
        self.sender.join(_FINISH_S + _ANSWER_S)
        if complete and self.sender.lost is not None:
            raise SinkLost(self.sender.lost)
        if complete and not self.sender.connections and self._pictures.received:
            raise SinkLost(f"{self._name}: no connection was made, nothing was sent")


class WhipSender(threading.Thread):
    """Keeps a session at a server, until it is told to leave: a connection that breaks is made anew.

    sent         pictures that were taken to be sent
    connections  that stood
    lost         one line for the user, once it was refused for good
    """

    def __init__(self, name: str, endpoint: Endpoint, pictures: LatestPicture) -> None:
        super().__init__(name="wf:whip", daemon=True)
        self._shown, self._endpoint, self._pictures = name, endpoint, pictures
        self._leaving = threading.Event()
        self._backoff = Backoff(_FIRST_S, _MOST_S, random.random)
        self.sent = self.connections = 0
        self.lost: str | None = None

    def leave(self) -> None:
        """End."""
        self._leaving.set()

    def run(self) -> None:
        """The thread."""
        begun = time.monotonic()
        loop = EventLoop()
        try:
            while not self._leaving.is_set():
                stood = self.connections
                try:
                    self._session(loop)
                except Broken as why:
                    late = not self.connections and time.monotonic() - begun > _PATIENCE_S
                    if TRIES.get(why.fault) == 1 or late:
                        self.lost = f"{self._shown}: {why}. {why.remedy}".rstrip()
                        return
                if self.connections > stood:
                    self._backoff.reset()
                self._leaving.wait(self._backoff.failed())
        except Exception as error:  # noqa: BLE001  (the thread's end; the next write tells it)
            self.lost = f"{self._shown}: {type(error).__name__}: {error}"
        finally:
            loop.close()

    def _session(self, loop: EventLoop) -> None:
        """One session, from its offer to its end. Raises Broken."""
        peer = new_peer()
        self._pictures.discard()
        session = ""
        try:
            offer = loop.do(_offer(peer, self._frame))
            answer, session = ask_for_session(self._endpoint, offer, _ANSWER_S)
            loop.do(take_answer(peer, answer))
            deadline = time.monotonic() + _CONNECT_S
            while not self._leaving.wait(_TAKE_S / 4):
                if peer.connectionState in ("failed", "closed"):
                    raise Broken(Fault.NETWORK, "the connection broke")
                if peer.connectionState == "connected":
                    break
                if time.monotonic() > deadline:
                    raise Broken(Fault.SILENT, "no way to the server was found")
            if self._leaving.is_set():
                return
            self.connections += 1
            while not self._leaving.wait(_TAKE_S):
                if peer.connectionState != "connected":
                    raise Broken(Fault.NETWORK, "the connection broke")
        finally:
            if session:
                end_session(self._endpoint, session, _ANSWER_S)
            with contextlib.suppress(TimeoutError):
                loop.do(peer.close())

    def _frame(self) -> VideoFrame | None:
        """The newest picture, waited for; None when there is none yet."""
        picture = self._pictures.take(_TAKE_S)
        if picture is None:
            return None
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture.rgb), format="rgb24")
        frame.pts, frame.time_base = round(Fraction(picture.due_ns, 10**9) / _CLOCK), _CLOCK
        self.sent += 1
        return frame


async def _offer(peer: Any, newest: Any) -> str:
    from aiortc import RTCRtpSender, VideoStreamTrack

    class Track(VideoStreamTrack):
        """Pictures as they come."""

        async def recv(self) -> VideoFrame:
            loop = asyncio.get_running_loop()
            while True:
                frame = await loop.run_in_executor(None, newest)
                if frame is not None:
                    assert isinstance(frame, VideoFrame)
                    return frame

    transceiver = peer.addTransceiver(Track(), direction="sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    # H.264 first: every player and server has it, and aiortc gives it twice the bits of VP8.
    transceiver.setCodecPreferences(sorted(codecs, key=lambda codec: codec.mimeType != "video/H264"))
    await peer.setLocalDescription(await peer.createOffer())
    return str(peer.localDescription.sdp)
