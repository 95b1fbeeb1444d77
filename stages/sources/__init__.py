"""Where frames come from.

A module of this folder, or behind an entry point of `warpfuse.sources`, that declares SCHEMES, `probe` and `open` is a
kind of source. Of several modules for one scheme (`file:` is clips, pictures in a row, animated WebP) the one takes an
address whose `serves` says so.

How a picture is shown. A decoded picture is shown as a player shows it on a BT.709 display, and a line at the end of
the run tells of what was more than scaling. Progressive BT.709 video meets swscale alone (`display.py`). What is not
tagged is BT.709, but for the matrix of SD (below 1280 pixels of width and up to 576 lines), which is BT.601's; what is
tagged is believed.

- Colour (`colour.py`). PyAV's FFmpeg has neither zscale nor libplacebo, and its swscale cuts HDR off or shows it far
  too dark. So light is computed: HLG on a display of 1000 nits (BT.2100), PQ as it is, BT.2390's curve from 1000 to 203
  nits, which SDR's white stands for; what is brighter is cut off, and mastering metadata is not used. Other primaries
  are converted light for light.
- Fields (`fields.py`). `bwdif` makes one frame of each. A frame flagged as interlaced is, also where its two fields
  show one moment; of codecs without such flags the container is asked. A 3:2 pulldown is known by the fields it
  repeats, after two of its cycles; then `fieldmatch` stands before `bwdif`, and no frame is dropped.
- Alpha (`transparency.py`). A picture is composed at its stored size, before anything is scaled. VP8 and VP9 in WebM
  are decoded by libvpx where the file has alpha, for FFmpeg's own decoders leave it out.

Damage. Nothing that lies in an input may end in a traceback, and FFmpeg's bindings raise more than FFmpeg's errors:
ValueError for a number they do not know, UnicodeDecodeError, MemoryError. `container.py` is the one net: `net` around
opening and showing, `Demuxer` for packets, `Decoder` for frames; `faults.foreign` is the same for connections. What is
damaged is passed over and counted. A muxer would refuse a damaged packet of sound while it writes a picture, so each is
tried on a muxer that writes nowhere first (`sinks/sound.py`). `bench/fuzz_sources.py` looks for what gets through.

Times are mended in one place, `times.py`. `PacketTimes` takes the jumps out of a file's packets where the program
ffmpeg does; `Times` gives every frame a later time than the one before. Source and sink read a file each for itself and
get the same times, for they depend on the file alone. A live source's times are then laid on the clock of arrival.

Live sources. `receiver.py` is a thread: a connection has to be drained whether or not anybody reads, or it grows late.
It keeps the newest picture; `LiveSource` gives it to whoever reads, or the last one again, marked `stale`, while
nothing comes. What a kind of source adds is a `Session` (`session.py`): connect, pictures until it breaks, interrupt.
Clips over HTTP wait for their reader and end. When to call a source stalled, when to try again and when to give up is
`connection.py`, a state machine without I/O. How often a fault may repeat depends on its class (`faults.py`): a wrong
password once, a missing path a few times, a network for half an hour. A source that is lost ends the stream in order,
and the loss is raised when the sinks are done: hours of recording are not thrown away with the connection.

Their sound (`sound_packets.py`) is not decoded: packets ride with the next picture as far as the capture, as small NUT
files, and from there go by a bypass to the sinks that keep it. So pictures that are dropped take no sound with them.

What an HTTP server answers decides how it is read (`web.py`): FFmpeg takes streams and clips; multipart pictures are
taken apart here (`multipart.py`), on the connection that was asked with. Of several sizes one is chosen
(`variants.py`): FFmpeg gets an HLS playlist of that one alone, since it would fetch the start of each. HLS sends
seconds at a time and is shown at its own spacing. FFmpeg's `nobuffer` is not used, for it throws away the first key
picture. Cameras are read through `v4l2_capture.py`, not FFmpeg's device, which cannot be interrupted and waits without
end; a camera is found again by its plug, then by its name. `tests/vm` boots Debian's kernel in QEMU for tests against
real Video4Linux devices.
"""

import sys
from typing import Any

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.schemes import module_for
from warpfuse.stages.stage import Source, VideoInfo

__all__ = ["connects", "has_sound", "open_source", "probe"]


def connects(url: str) -> bool:
    """The source is a connection, and some servers take but one: it is not probed and opened, but opened without a size
    and then made to `fit`. Raises SourceError for an unknown kind."""
    return bool(getattr(module_for(sys.modules[__name__], url, "source", SourceError), "CONNECTS", False))


def has_sound(url: str) -> bool:
    """The source is one that may have sound and give it with its pictures. Raises SourceError for an unknown kind."""
    return bool(getattr(module_for(sys.modules[__name__], url, "source", SourceError), "HAS_SOUND", False))


def probe(url: str) -> VideoInfo:
    """What is known of the source before a run: displayed size, rate, number of frames.

    Raises SourceError when it cannot be opened or holds no picture."""
    info: VideoInfo = module_for(sys.modules[__name__], url, "source", SourceError).probe(url)
    return info


def open_source(url: str, size: tuple[int, int] | None = None, frames: int | None = None, **options: Any) -> Source:
    """Open the source that `url` names; its first frame has been decoded when this returns.

    size     (width, height) px of the frames: cropped centrally to that aspect and scaled; None: as displayed, even
    frames   stop after that many
    options  of that kind of source (`threads` for a file)

    Raises SourceError when the source cannot be opened, holds no picture, or a value is out of range."""
    if size is not None and min(size) < 2:
        raise SourceError(f"{url}: frames of {size[0]}x{size[1]} were asked for, the least is 2x2.")
    if frames is not None and frames < 1:
        raise SourceError(f"{url}: {frames} frames were asked for, the least is 1.")
    module = module_for(sys.modules[__name__], url, "source", SourceError)
    source: Source = module.open(url, size, frames, **options)
    return source
