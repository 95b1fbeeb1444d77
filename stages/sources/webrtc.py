"""What WHIP (RFC 9725) and WHEP share: one SDP offer by HTTP POST, one answer, and a DELETE.

WebRTC is aiortc's, of the extra `web`; its event loop has a thread of its own. All candidates of ICE are in the offer
and in the answer; no server is asked for this machine's address. Sound is not taken.
"""

import asyncio
import contextlib
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from av.video.frame import VideoFrame

from warpfuse.engine.errors import BadInput
from warpfuse.engine.redact import redact
from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.session import ReceivedPicture

SDP = "application/sdp"
MOST_SDP = 100_000  # bytes
_HELD = 4  # pictures that wait for their reader; older ones go
_TURN_S = 10.0  # of the event loop, for what it is asked
_REDIRECTS = 3
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a session is asked for. token: sent as a bearer token; "": none."""

    url: str
    token: str = ""

    @classmethod
    def parse(cls, address: str, error: type[BadInput]) -> "Endpoint":
        """Read `whep://HOST[:PORT]/PATH[#token=TOKEN]`, `wheps://` for HTTPS; whip and whips alike. Raises `error`."""
        bare, _, setting = address.partition("#")
        scheme, _, rest = bare.partition("://")
        secure = scheme.lower().endswith("s")
        try:
            named = bool(urlsplit(bare).hostname) and urlsplit(bare).port != 0
        except ValueError:
            named = False
        kind = scheme.lower()[:4]
        if not named or (setting and not setting.startswith("token=")):
            raise error(
                f"{redact(address)}: expected {kind}://HOST:PORT/PATH#token=TOKEN, the token where it is asked for"
            )
        return cls(f"http{'s' if secure else ''}://{rest}", setting.removeprefix("token="))


def require_aiortc(name: str, error: type[BadInput]) -> None:
    """Raise `error` where aiortc is not installed."""
    try:
        import aiortc  # noqa: F401  (only whether it is there)
    except ImportError:
        raise error(f"{redact(name)}: needs aiortc: pip install 'warpfuse[web]'") from None


class EventLoop:
    """An event loop in a thread, for callers that are in none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wf:webrtc", daemon=True)
        self._thread.start()

    def do(self, work: "Coroutine[Any, Any, _T]") -> _T:
        """What the coroutine gives. Raises what it raises, TimeoutError when it takes too long."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, _TURN_S), self._loop).result()

    def close(self) -> None:
        """End it, and what is left in it. A second call does nothing."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(_TURN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=1)


class Incoming:
    """Pictures of peers that send, for one thread that reads. All but `pictures` and `end` belong to the event loop."""

    def __init__(self) -> None:
        self._pictures: queue.Queue[VideoFrame | Broken] = queue.Queue()
        self._peer: Any = None

    async def receive(self, offer: str) -> str:
        """Take the offer of a peer that sends; the answer. It takes the place of the one before. Raises Broken."""
        from aiortc import RTCSessionDescription

        peer = new_peer()
        self._listen(peer)
        try:
            await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            if not any(one.kind == "video" for one in peer.getTransceivers()):
                raise ValueError("no picture")
            await peer.setLocalDescription(await peer.createAnswer())
        except Exception as error:  # noqa: BLE001  (what a parser raises on text from outside)
            await peer.close()
            raise Broken(Fault.FOREIGN, f"this is no offer of WebRTC: {type(error).__name__}") from None
        await self.leave()
        self._peer = peer
        return str(peer.localDescription.sdp)

    async def offer(self) -> str:
        """The offer of a peer that is to be sent pictures."""
        peer = new_peer()
        self._listen(peer)
        peer.addTransceiver("video", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        self._peer = peer
        return str(peer.localDescription.sdp)

    async def answered(self, answer: str) -> None:
        """Take the answer to the offer. Raises Broken."""
        await take_answer(self._peer, answer)

    async def leave(self) -> None:
        """Close the connection, if there is one."""
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()

    def pictures(self) -> Iterator[ReceivedPicture]:
        """Pictures as they come. Raises Broken when the connection ends, and after `end`."""
        while True:
            got = self._pictures.get()
            if isinstance(got, Broken):
                raise got
            sent_ns = None if got.pts is None or got.time_base is None else round(got.pts * got.time_base * 10**9)
            yield ReceivedPicture(got, sent_ns)

    def end(self, why: Broken) -> None:
        """From any thread: `pictures` raises this next."""
        self._pictures.put(why)

    def _listen(self, peer: Any) -> None:
        @peer.on("track")  # type: ignore[untyped-decorator, unused-ignore]
        def came(track: Any) -> None:
            if track.kind == "video":
                self._reading = asyncio.ensure_future(self._read(peer, track))

        @peer.on("connectionstatechange")  # type: ignore[untyped-decorator, unused-ignore]
        async def changed() -> None:
            if peer is self._peer and peer.connectionState == "failed":
                self.end(Broken(Fault.NETWORK, "no way to the other side was found, or it is gone"))

    async def _read(self, peer: Any, track: Any) -> None:
        from aiortc.mediastreams import MediaStreamError

        try:
            while True:
                frame = await track.recv()
                if self._pictures.qsize() >= _HELD:
                    with contextlib.suppress(queue.Empty):
                        self._pictures.get_nowait()
                self._pictures.put(frame)
        except MediaStreamError:
            if peer is self._peer:
                self.end(Broken(Fault.ENDED, "the other side ended the stream"))


def new_peer() -> Any:
    """A connection of aiortc that asks no server."""
    from aiortc import RTCConfiguration, RTCPeerConnection

    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def take_answer(peer: Any, answer: str) -> None:
    """Have the peer take the answer to its offer. Raises Broken."""
    from aiortc import RTCSessionDescription

    try:
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    except Exception as error:  # noqa: BLE001  (what a parser raises on text from outside)
        raise Broken(Fault.FOREIGN, f"it does not answer as WebRTC does: {type(error).__name__}") from None


def ask_for_session(endpoint: Endpoint, offer: str, timeout_s: float) -> tuple[str, str]:
    """Send an offer; the answer, and the address of the session. Raises Broken."""
    url = endpoint.url
    for _ in range(_REDIRECTS):
        request = urllib.request.Request(url, offer.encode(), {"Content-Type": SDP, **_bearer(endpoint)}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.read(MOST_SDP).decode("utf-8", "replace"), urljoin(url, answer.headers["Location"] or "")
        except urllib.error.HTTPError as error:
            error.close()
            moved = error.headers.get("Location") if error.code in (307, 308) else None
            if moved is None:
                raise _refused(error.code) from None
            url = urljoin(url, moved)
        except urllib.error.URLError as error:
            raise Broken(Fault.NETWORK, str(getattr(error.reason, "strerror", None) or error.reason).lower()) from None
        except (OSError, ValueError) as error:
            raise Broken(Fault.NETWORK, str(getattr(error, "strerror", None) or type(error).__name__).lower()) from None
    raise Broken(Fault.FOREIGN, "it sends from one address to the next without end")


def end_session(endpoint: Endpoint, session: str, timeout_s: float) -> None:
    """DELETE the session. What fails then is of no account: it ends with its connection."""
    request = urllib.request.Request(session, headers=_bearer(endpoint), method="DELETE")
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=timeout_s):
        pass


def _bearer(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}


def _refused(code: int) -> Broken:
    if code in (401, 403):
        return Broken(Fault.DENIED, "the token was refused", "Check the token: #token=TOKEN at the end of the address.")
    if code in (404, 410):
        return Broken(Fault.UNKNOWN, "there is no such stream")
    if code == 406:
        return Broken(Fault.UNABLE, "it makes offers of its own and takes none", "")
    return Broken(Fault.NETWORK, f"the server answers {code}")
