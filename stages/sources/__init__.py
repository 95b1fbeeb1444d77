"""Where frames come from.

A module of this folder, or behind an entry point of `warpfuse.sources`, that declares SCHEMES, `probe` and `open` is a
kind of source.
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
