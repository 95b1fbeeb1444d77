"""The address and the settings of a published stream: `rtsp://host/path#kbps=4000,gop=1`."""

from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from warpfuse.engine.address import for_ffmpeg
from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SinkError

SOUNDS = ("on", "off")
CODECS = ("auto", "libx264", "h264_nvenc")
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast")
_EXAMPLE = "rtsp://127.0.0.1:8554/live#kbps=4000,gop=1"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The settings after the `#` of a stream's URL. They are not sent to the peer.

    kbps      bit rate, kilobits a second; 0: a tenth of a bit for each pixel
    gop       interval of key frames, s: the longest time a new viewer waits for a picture
    codec     auto: h264_nvenc where it can be opened, else libx264. A named codec that cannot be opened is an error
    preset    x264's preset
    sound     off: the sound of a live source is not sent
    stall     time in s after which a peer that takes nothing counts as lost
    patience  time in s within which the first connection must succeed; later ones are tried for ever
    """

    kbps: int = 0
    gop: float = 1.0
    codec: str = "auto"
    preset: str = "superfast"
    sound: str = "on"
    stall: float = 3.0
    patience: float = 15.0


_RANGES = {"kbps": (0, 200_000), "gop": (0.1, 10.0), "stall": (0.5, 60.0), "patience": (1.0, 86_400.0)}
_CHOICES = {"codec": CODECS, "preset": PRESETS, "sound": SOUNDS}


@dataclass(frozen=True, slots=True)
class Address:
    """A stream's URL in FFmpeg's form, without settings; and its settings."""

    url: str
    settings: StreamSettings

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Parse a stream's URL. Raises SinkError for a URL without a host and for unknown settings."""
        scheme = url.partition(":")[0]
        if not url.startswith(f"{scheme}://"):  # the URL is not shown, since a password in it cannot be found
            raise SinkError(f"{scheme}: no host behind two slashes. Write, for example, {_EXAMPLE}.")
        try:
            url, _, text = for_ffmpeg(url).partition("#")
        except ValueError as error:
            raise SinkError(f"{redact(url)}: {error}") from None
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host:
            raise SinkError(f"{redact(url)}: no host in it. Write, for example, {_EXAMPLE}.")
        settings = StreamSettings()
        for part in filter(None, text.split(",")):
            settings = _with(settings, redact(url), part)
        return cls(url, settings)


def _with(settings: StreamSettings, name: str, part: str) -> StreamSettings:
    key, equals, value = part.partition("=")
    if not equals:  # the text is not shown, since it may be the rest of a passphrase with a #
        raise SinkError(
            f"{name}: what follows its # is no setting. Write {_EXAMPLE}, and a # of the address itself as %23."
        )
    known = [field.name for field in fields(StreamSettings)]
    if key not in known:
        near = get_close_matches(key, known, 1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known are {', '.join(known)}."
        raise SinkError(f"{name}: '{key}' is not understood. {hint} Write, for example, {_EXAMPLE}.")
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise SinkError(f"{name}: {key} is one of {', '.join(_CHOICES[key])}, not '{value}'.")
        choice: dict[str, Any] = {key: value}
        return replace(settings, **choice)
    least, most = _RANGES[key]
    try:
        number = type(getattr(settings, key))(value)
    except ValueError:
        raise SinkError(f"{name}: {key} is a number, not '{value}'.") from None
    if not least <= number <= most:
        raise SinkError(f"{name}: {key} is {value}; it must be from {least:g} to {most:g}.")
    return replace(settings, **{key: number})
