"""Where frames go.

A module of this folder, or behind an entry point of `warpfuse.sinks`, that declares SCHEMES, `check` and `open` is a
kind of sink.

A live sink is the one stage with a thread of its own: whoever it writes to may freeze. `write` copies the frame into a
place for one, newest first, and returns; what is replaced is counted. A file shown live is slowed to real time by the
clock (`playback.py`), never by a viewer.

- Streams (`stream.py`): the thread encodes and hands NUT through a pipe to a process (`remux.py`, for SRT `ffmpeg`)
  that talks to the peer. A process, because a frozen peer holds whoever writes to it, whatever timeouts were set, and
  only a process can be killed: a pipe that takes nothing for `stall` seconds ends it. A lost connection is made again
  after a full-jitter pause; a refused one (wrong password) ends the run with exit 3.
- Cameras (`camera_thread.py`): absolute deadlines, something at every tick. With `on-fault=passthrough` the source's
  frames come too, by a bypass (`graph/runtime/bypass.py`), and are shown while no styled ones do. It is a link like any
  other but belongs to no epoch: it lasts as long as the two processes at its ends.
- Page (`page.py`): the newest picture for any number of viewers, encoded once, by the first who asks, or not at all.
- Files are written in place under a temporary name. What cannot be made again, a file of a live source, is written in
  fragments that become an ordinary file at the end; whatever goes wrong, it stays where it is under a name that players
  open (`target.py`), and the next sink of that file says so.
"""

import sys
from types import ModuleType
from typing import Any

from warpfuse.stages.errors import SinkError
from warpfuse.stages.sources.schemes import module_for, scheme_of
from warpfuse.stages.stage import Sink, VideoInfo

_HINTS = {"window": "there are no windows here. Use --sink page:8080 and open http://127.0.0.1:8080/view"}
"""Kinds of sink that somebody might look for, and what to use instead."""

__all__ = ["check", "open_sink", "wants_raw", "wants_sound"]


def check(url: str, source: str | None = None) -> None:
    """Find out, before anything slow is loaded, whether the sink can be opened. Writes nothing that stays.

    source  URL the frames come from: a sink must not be the same file

    Raises SinkError: unknown kind or container, folder missing or not writable, a folder, the source itself."""
    _module(url).check(url, source)


def wants_raw(url: str) -> bool:
    """The sink is one that is to get the source's pictures as well (`stage.Bridging`). Raises SinkError."""
    asked = getattr(_module(url), "wants_raw", None)
    return bool(asked is not None and asked(url))


def wants_sound(url: str) -> bool:
    """The sink is one that keeps the sound of a live source (`stage.Hearing`). Raises SinkError."""
    return bool(getattr(_module(url), "KEEPS_SOUND", False))


def open_sink(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None, **options: Any) -> Sink:
    """Open the sink that `url` names.

    info        of the source: its rate and the unit of its times
    size        (width, height) px of every frame that will be written
    sound_from  file whose sound is copied beside the picture; its picture, if it has one, is where `info` came from
    options     of that kind of sink (`threads` for a file)

    Raises SinkError."""
    module = _module(url)
    sink: Sink = module.open(url, info, size, sound_from, **options)
    return sink


def _module(url: str) -> ModuleType:
    hint = _HINTS.get(scheme_of(url))
    if hint is not None:
        raise SinkError(f"{url}: {hint}")
    return module_for(sys.modules[__name__], url, "sink", SinkError)
