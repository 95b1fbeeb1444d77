"""A stream that a server sends by WHEP: `whep://host:8889/cam/whep`, `wheps://` over HTTPS, `#token=T` behind."""

from collections.abc import Iterator
from fractions import Fraction

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.live import live_source
from warpfuse.stages.sources.session import Connect, Nature, ReceivedPicture
from warpfuse.stages.sources.webrtc import Endpoint, EventLoop, Incoming, ask_for_session, end_session, require_aiortc

SCHEMES: tuple[str, ...] = ("whep", "wheps")
CONNECTS = True

_USUAL_RATE = Fraction(30)  # WebRTC tells none


def _connecting(url: str, patience: Patience, near: tuple[int, int]) -> Connect:
    endpoint = Endpoint.parse(url, SourceError)
    require_aiortc(url, SourceError)
    return lambda: WhepSession(endpoint, patience.silence)


probe, open = live_source(_connecting)


class WhepSession:
    """One session at a server, from its offer until it breaks."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        """Raises Broken."""
        self.nature = Nature(_USUAL_RATE)
        self._endpoint, self._timeout_s = endpoint, timeout_s
        self._incoming, self._loop = Incoming(), EventLoop()
        self._session = ""
        try:
            answer, self._session = ask_for_session(endpoint, self._loop.do(self._incoming.offer()), timeout_s)
            self._loop.do(self._incoming.answered(answer))
        except BaseException:
            self.close()
            raise

    def pictures(self) -> Iterator[ReceivedPicture]:
        """Pictures as they come."""
        return self._incoming.pictures()

    def interrupt(self) -> None:
        """End `pictures`."""
        self._incoming.end(Broken(Fault.SILENT, "it sends no pictures"))

    def close(self) -> None:
        """Tell the server, and leave."""
        if self._session:
            end_session(self._endpoint, self._session, self._timeout_s)
        self._session = ""
        self._loop.do(self._incoming.leave())
        self._loop.close()
