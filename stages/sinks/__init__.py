"""Sinks, which take frames out of the graph.

A module of this folder, or behind an entry point of `warpfuse.sinks`, is a kind of sink if it defines SCHEMES, `check`
and `open`.

A live sink is the only stage with a thread of its own, since its device or peer may stop responding. `write` copies the
frame into a slot for the newest one and returns; frames that are replaced are counted. A file shown live is slowed down
to real time by the clock (`playback.py`), not by a viewer.

- Streams (`stream.py`): the thread encodes, and sends NUT through a pipe to a process (`remux.py`, or `ffmpeg` for SRT)
  that talks to the peer. It is a process because a peer that stops responding can block its writer despite timeouts,
  and only a process can be killed. That happens when the pipe takes nothing for `stall` seconds. A lost connection is
  made again after a pause with full jitter. A refused connection (wrong password) ends the run with exit code 3. The
  sound of a live source is decoded into a buffer, and encoded as far as pictures are sent (`stream_sound.py`).
- Cameras (`camera_thread.py`): a picture at every tick, with absolute deadlines. With `on-fault=passthrough`, the sink
  also gets the source's frames by a bypass (`graph/runtime/bypass.py`), and shows them while no styled ones come.
- Page (`page.py`): the newest picture for any number of viewers. It is encoded when the first viewer asks for it.
- Files are written under a temporary name in their folder. A file of a live source cannot be made again. So it is
  written in fragments, which become an ordinary file at the end. If the run fails, it stays under a name that players
  can open (`target.py`), and the next sink of that file reports it.
"""

import sys
from types import ModuleType
from typing import Any

from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SinkError
from warpfuse.stages.sources.schemes import module_for, scheme_of
from warpfuse.stages.stage import Sink, VideoInfo

_HINTS = {"window": "there are no windows here. Use --sink page:8080 and open http://127.0.0.1:8080/view"}
"""Kinds of sink that do not exist but are likely to be tried, with what to use instead."""

__all__ = ["check", "check_alpha", "open_sink", "wants_raw", "wants_sound"]


def check(url: str, source: str | None = None) -> None:
    """Check whether the sink can be opened, before anything slow is loaded. It leaves no file behind.

    source  URL of the source: a sink must not write to the same file

    Raises SinkError: unknown kind or container, folder missing or not writable, a folder, the source itself.
    """
    _module(url).check(url, source)


def check_alpha(url: str) -> None:
    """Raise SinkError if frames with an alpha channel cannot be written to the sink."""
    carries = getattr(_module(url), "carries_alpha", None)
    if carries is None or not carries(url):
        raise SinkError(
            f"{redact(url)}: mask.rest is transparent, and this sink holds no alpha. These do: .mov (ProRes 4444),"
            " .webm (VP9), pictures in a row (.png, .webp, .tif). Or show a colour there: mask.rest=background"
        )


def wants_raw(url: str) -> bool:
    """The sink needs the source's pictures as well (`stage.Bridging`). Raises SinkError."""
    asked = getattr(_module(url), "wants_raw", None)
    return bool(asked is not None and asked(url))


def wants_sound(url: str) -> bool:
    """The sink takes the sound of a live source (`stage.Hearing`). Raises SinkError."""
    return bool(getattr(_module(url), "KEEPS_SOUND", False))


def open_sink(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None, **options: Any) -> Sink:
    """Open the sink that `url` names.

    info        info of the source: its rate and the unit of its times
    size        (width, height) px of every frame that will be written
    sound_from  file whose sound is copied beside the picture; it may be the source itself
    options     options of this kind of sink (`threads` for a file)

    Raises SinkError.
    """
    module = _module(url)
    if info.alpha:
        check_alpha(url)
    sink: Sink = module.open(url, info, size, sound_from, **options)
    return sink


def _module(url: str) -> ModuleType:
    hint = _HINTS.get(scheme_of(url))
    if hint is not None:
        raise SinkError(f"{url}: {hint}")
    return module_for(sys.modules[__name__], url, "sink", SinkError)
