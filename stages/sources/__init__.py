"""Sources, which bring frames into the graph.

A module of this folder, or behind an entry point of `warpfuse.sources`, is a kind of source if it defines SCHEMES,
`probe` and `open`. Several modules may have the same scheme (`file:` has video files, image sequences and animated
WebP). Each of them has a function `serves`, which tells whether it takes an address.

Display. A decoded picture is converted as a player does for a BT.709 display. Anything beyond scaling is reported to
the user at the end of the run. Progressive BT.709 video needs swscale only (`display.py`). Tags are believed. Untagged
video is BT.709, except that SD (below 1280 pixels of width and up to 576 lines) has the matrix of BT.601.

- Colour (`colour.py`). PyAV's FFmpeg has neither zscale nor libplacebo, and its swscale clips HDR or shows it far too
  dark. So the light is computed here: HLG for a display of 1000 nits (BT.2100), PQ as it is, then BT.2390's tone curve
  from 1000 nits to 203, the white of SDR. Brighter light is clipped, and mastering metadata is not used. Other
  primaries are converted in linear light.
- Fields (`fields.py`). `bwdif` makes one frame of the two fields of a frame. A frame with the interlaced flag is
  deinterlaced, even if both fields show the same moment. For codecs without flags the container's field order is used.
  3:2 pulldown is recognized by its repeated fields, after two cycles. `fieldmatch` then runs before `bwdif`, and no
  frame is dropped.
- Alpha (`transparency.py`). A picture is composed on the background at its stored size, before scaling. VP8 and VP9 in
  WebM are decoded by libvpx if the file has alpha, since FFmpeg's own decoders ignore it.

Damage. No input may cause a traceback. PyAV raises more than FFmpeg's errors: ValueError for an unknown number,
UnicodeDecodeError, MemoryError. `container.py` catches them: `net` around opening and showing, `Demuxer` for packets,
`Decoder` for frames. `faults.foreign` does the same for connections. Damaged parts are skipped and counted. A muxer
would refuse a damaged packet of sound while it writes a picture, so each packet is first tried on a muxer without
output (`sinks/sound.py`). `bench/fuzz_sources.py` searches for inputs that still get through.

Times are repaired in `times.py`. `PacketTimes` removes the jumps in the times of a file's packets, as the program
ffmpeg does. `Times` gives every frame a later time than the frame before. The source and the sink each read the file
and get the same times, since those depend on the file only. The times of a live source are mapped to the time of
arrival afterwards.

Live sources. `receiver.py` is a thread that reads the connection all the time, since a connection that is not read
falls behind. It keeps the newest picture. `LiveSource` gives it to the reader, or the last one again, marked `stale`,
while none comes. A kind of live source defines a `Session` (`session.py`): connect, pictures until the connection
breaks, interrupt. Clips over HTTP wait for their reader and have an end. `connection.py` is a state machine without I/O
that decides when a source counts as stalled, when to reconnect and when to give up. How often a fault may repeat
depends on its class (`faults.py`): a wrong password once, a missing path a few times, a network failure for half an
hour. A lost source ends the stream in order, and the loss is raised when the sinks have finished. So hours of recording
are not lost with the connection.

The sound of live sources (`sound_packets.py`) is not decoded. Its packets come with the next picture as small NUT
files. The capture passes them on by a bypass to the sinks that take sound. So dropping a picture drops no sound.

An HTTP server's answer decides how it is read (`web.py`). FFmpeg reads streams and clips. Multipart pictures are parsed
here (`multipart.py`), from the connection of the first request. If a stream comes in several sizes, one is chosen
(`variants.py`). FFmpeg then gets an HLS playlist with this variant only, since it would fetch the start of every one.
HLS comes in segments of some seconds, and its pictures are shown at their own intervals. FFmpeg's `nobuffer` is not
used, because it discards the first key frame. Cameras are read by `v4l2_capture.py`. FFmpeg's device for them waits
without limit and cannot be interrupted. A camera that was unplugged is found again by its port, then by its name.
`tests/vm` boots Debian's kernel in QEMU for tests with real Video4Linux devices.
"""

import sys
from typing import Any

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.schemes import module_for
from warpfuse.stages.stage import Source, VideoInfo

__all__ = ["connects", "has_sound", "open_source", "probe"]


def connects(url: str) -> bool:
    """The source is a connection. Some servers accept only one, so instead of being probed and then opened, such a
    source is opened without a size and gets it by `fit` later. Raises SourceError for an unknown kind."""
    return bool(getattr(module_for(sys.modules[__name__], url, "source", SourceError), "CONNECTS", False))


def has_sound(url: str) -> bool:
    """Pictures of this kind of source may come with sound. Raises SourceError for an unknown kind."""
    return bool(getattr(module_for(sys.modules[__name__], url, "source", SourceError), "HAS_SOUND", False))


def probe(url: str) -> VideoInfo:
    """Displayed size, rate and other information on a source, before a run.

    Raises SourceError when it cannot be opened or has no picture.
    """
    info: VideoInfo = module_for(sys.modules[__name__], url, "source", SourceError).probe(url)
    return info


def open_source(url: str, size: tuple[int, int] | None = None, frames: int | None = None, **options: Any) -> Source:
    """Open the source that `url` names. Its first frame has been decoded when this returns.

    size     (width, height) px of the frames, which are cropped centrally to that aspect and scaled; None: the
             displayed size, rounded to even numbers
    frames   number of frames after which to stop; None: all
    options  options of this kind of source (`threads` for a file)

    Raises SourceError when the source cannot be opened, has no picture, or a value is out of range.
    """
    if size is not None and min(size) < 2:
        raise SourceError(f"{url}: frames of {size[0]}x{size[1]} were asked for, the least is 2x2.")
    if frames is not None and frames < 1:
        raise SourceError(f"{url}: {frames} frames were asked for, the least is 1.")
    module = module_for(sys.modules[__name__], url, "source", SourceError)
    source: Source = module.open(url, size, frames, **options)
    return source
