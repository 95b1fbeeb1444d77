"""A stream as a sink, published to a server or listener: `rtsp://`, `rtmp://` or `srt://`, low-latency H.264."""

import contextlib
from collections.abc import Sequence

from warpfuse.engine.address import for_ffmpeg
from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.frame import RawFrame, SoundPiece
from warpfuse.stages.sinks.address import Address
from warpfuse.stages.sinks.beside import unheld
from warpfuse.stages.sinks.bt709 import require_even
from warpfuse.stages.sinks.latest_picture import LatestPicture
from warpfuse.stages.sinks.live_encoder import codec_for
from warpfuse.stages.sinks.playback import Playback
from warpfuse.stages.sinks.publisher import Publisher
from warpfuse.stages.sinks.relay import program_for
from warpfuse.stages.sinks.stream_sound import StreamSound
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("rtsp", "rtsps", "rtmp", "rtmps", "srt")
KEEPS_SOUND = True

_FINISH_S = 5.0


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError for an invalid address or setting, a missing encoder or program, or the source's address."""
    address = Address.parse(url)
    if source is not None and _address(source) == address.url:
        raise SinkError(f"{redact(url)} is the source as well: publish under another path.")
    program_for(address.url)
    codec_for(address.settings.codec)


def _address(source: str) -> str:
    with contextlib.suppress(ValueError):
        source = for_ffmpeg(source)
    return source.partition("#")[0]


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> "StreamSink":
    """Start publishing. The connection is made in another thread. Raises SinkError, also for odd sizes."""
    check(url)
    require_even(redact(url), size)
    address = Address.parse(url)
    sent = info.sound and address.settings.sound == "on"
    return StreamSink(address, info, size, () if sent else unheld(sound_from, info))


class StreamSink:
    """Publishes a stream, with the sound of a live source. `write` never waits for the peer. Without a connection,
    frames are dropped and counted.

    A file is played in real time, without its sound.
    """

    def __init__(self, address: Address, info: VideoInfo, size: tuple[int, int], unsent: Sequence[str] = ()) -> None:
        """unsent: content of the source beside its picture, in words."""
        self._unsent = unsent
        self._name = redact(address.url)
        self._encoder = codec_for(address.settings.codec)
        self._playback = Playback(info)
        self._pictures = LatestPicture(size)
        self._sound_notes: list[str] = []
        self._sound: StreamSound | None = None
        if info.sound and address.settings.sound == "on":
            self._sound = StreamSound(info.sound, self._sound_notes)
        self.publisher = Publisher(
            address, self._pictures, size, info.fps, None if self._sound is None else self._sound.buffer
        )
        self.publisher.start()

    @property
    def dropped(self) -> int:
        """Number of frames replaced by a newer one before they were sent."""
        return self._pictures.dropped

    @property
    def notes(self) -> list[str]:
        """The figures in one line, and in another the content that is not sent."""
        figures = f"{self.publisher.sent} frames sent by {self._encoder}, {self.dropped} dropped"
        notes = [f"{self._name}: {figures}, {self.publisher.reconnects} reconnects"]
        if self._unsent:
            notes.append(f"{self._name}: the picture alone is sent, not {'; '.join(self._unsent)}")
        return [*notes, *(f"{self._name}: {note}" for note in self._sound_notes)]

    def write(self, frame: RawFrame) -> None:
        """Pass the frame to the publisher. Raises SinkLost when the peer has refused the stream for good."""
        due_ns = self._playback.due(frame)
        if self.publisher.lost is not None:
            raise SinkLost(self.publisher.lost)
        self._pictures.put(frame.rgb, due_ns, frame.stamp.pts_ns)

    def hear(self, piece: SoundPiece) -> None:
        """Keep sound for the pictures of its time. It never waits."""
        if self._sound is not None:
            self._sound.hear(piece)

    def close(self, complete: bool) -> None:
        """Send the waiting picture and end the stream, within a few seconds.

        Raises SinkLost if the stream was refused or no connection was ever made.
        """
        self._playback.close()
        if not complete or self.publisher.state != "LIVE":
            self.publisher.leave()
        self._pictures.close()
        self.publisher.join(_FINISH_S)
        if self.publisher.is_alive():
            self.publisher.leave()
            self.publisher.join(_FINISH_S)
        if self._sound is not None:
            self._sound.close()
        if complete and self.publisher.lost is not None:
            raise SinkLost(self.publisher.lost)
        if complete and not self.publisher.connections and self._pictures.received:
            raise SinkLost(f"{self._name}: no connection was made, nothing was sent")
