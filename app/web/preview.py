"""The live pictures of a session, to a browser: WebRTC, or a stream of JPEGs where that cannot connect.

Both take the newest picture when the last one has left, so a slow viewer sees fewer pictures, never older ones.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from fractions import Fraction

import cv2
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from av.video.frame import VideoFrame

from warpfuse.graph.errors import ConfigError
from warpfuse.web.motion import Rgb
from warpfuse.web.pictures import Look, Pictures

BOUNDARY = "warpfuse-picture"
MOST_PEERS = 16

_REPEAT_S = 2.0  # a picture is sent again when none comes: the only way to find out that a viewer is gone
_LONG_SIDE_PX = 1280  # of what WebRTC encodes, in software, for each viewer
_CLOCK = Fraction(1, 90_000)


async def jpegs(pictures: Pictures, look: Look) -> AsyncIterator[bytes]:
    """Parts of a multipart/x-mixed-replace body, without end."""
    loop = asyncio.get_running_loop()
    yield f"--{BOUNDARY}\r\n".encode()
    heard = -1
    with pictures.watched():
        while True:
            heard = await pictures.bell.wait(heard, _REPEAT_S)
            made = await loop.run_in_executor(None, pictures.jpeg, look)
            if made is not None:
                data = made[1]
                # The boundary goes right behind the picture: a browser shows a part only when it has seen its end.
                yield f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
                yield f"\r\n--{BOUNDARY}\r\n".encode()


class PictureTrack(VideoStreamTrack):
    """A video track of the newest pictures. `look` may be changed at any time."""

    def __init__(self, pictures: Pictures, look: Look) -> None:
        super().__init__()
        self.look = look
        self._pictures = pictures
        self._heard = -1
        self._began = time.monotonic()

    async def recv(self) -> VideoFrame:
        """Wait for a picture newer than the last one sent, and return it."""
        loop = asyncio.get_running_loop()
        while True:
            self._heard = await self._pictures.bell.wait(self._heard, _REPEAT_S)
            frame = await loop.run_in_executor(None, self._frame)
            if frame is not None:
                return frame

    def _frame(self) -> VideoFrame | None:
        made = self._pictures.composed(self.look)
        if made is None:
            return None
        frame = VideoFrame.from_ndarray(_sendable(made[1]), format="rgb24")
        frame.pts, frame.time_base = round((time.monotonic() - self._began) / _CLOCK), _CLOCK
        return frame


class Peers:
    """The WebRTC viewers. Belongs to the event loop."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._peers: dict[str, tuple[RTCPeerConnection, PictureTrack]] = {}

    async def answer(self, number: str, offer: str, look: Look) -> str:
        """Accept a viewer. Returns the SDP answer to its offer. Raises ConfigError: no offer, too many viewers."""
        if len(self._peers) >= MOST_PEERS:
            raise ConfigError(f"{MOST_PEERS} viewers look already; close one of them")
        # No server is asked for this machine's address: nothing leaves the local network.
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        track = PictureTrack(self._pictures, look)
        undo = ExitStack()
        undo.enter_context(self._pictures.watched())
        self._peers[number] = peer, track

        async def changed() -> None:
            if peer.connectionState in ("failed", "closed"):
                undo.close()
                await self.leave(number)

        peer.on("connectionstatechange", changed)
        try:
            await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            peer.addTrack(track)
            await peer.setLocalDescription(await peer.createAnswer())
        except Exception as error:  # noqa: BLE001  (what a parser raises on text from outside)
            undo.close()
            await self.leave(number)
            raise ConfigError(f"this is no offer of WebRTC: {type(error).__name__}") from None
        return str(peer.localDescription.sdp)

    def look(self, number: str, look: Look) -> None:
        """Change how a viewer looks. Raises ConfigError for one that is not there."""
        if number not in self._peers:
            raise ConfigError("no such viewer")
        self._peers[number][1].look = look

    async def leave(self, number: str) -> bool:
        """Disconnect a viewer. False if there is none of this name."""
        held = self._peers.pop(number, None)
        if held is None:
            return False
        held[1].stop()
        await held[0].close()
        return True

    async def close(self) -> None:
        """Disconnect every viewer."""
        for number in list(self._peers):
            await self.leave(number)


def _sendable(rgb: Rgb) -> Rgb:
    """The picture with its longer side limited, and with even sides, which 4:2:0 needs."""
    height, width = rgb.shape[:2]
    scale = min(1.0, _LONG_SIDE_PX / max(width, height))
    size = max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2)
    if size == (width, height):
        return np.ascontiguousarray(rgb)
    if scale == 1.0:
        return np.ascontiguousarray(rgb[: size[1], : size[0]])
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
