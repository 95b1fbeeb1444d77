"""Stages, which process frames: sources, flow, encode, predict, warp, fuse, decode, sinks; and sampling mathematics.

A stage is a module with `open(opening) -> Stage` (`stage.py`). A stage whose settings may change during a run also has
`settings_of(config, prompts)`. The module's name is the kind of the stage. `graph/plan/dataflow.py` shows which stages
a graph has and in which order a frame passes them.

Other packages add a stage by an entry point of `warpfuse.stages`. Its module also defines

    AT = "picture"       the frame that it changes: "source" (the uploaded `Picture`), "x0" (the predicted `Latent`) or
                         "picture" (the `Picture` to be shown)
    Settings             a `StageSettings` with its keys

Its one input is called `frame`. A graph contains it if the configuration names it: `stages: {NAME: {amount: 0.3}}`.

`timing.py` has the tools for time and threads that sources, sinks and the graph share: the newest value (`Latest`), a
wake-up for pollers (`Waker`), pauses between tries (`Backoff`), times of one clock on another (`ClockMap`) and ticks at
a constant rate (`Ticker`). Files are written with `engine/files.py`.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Literal, get_args

from warpfuse.engine.errors import BadInput
from warpfuse.engine.registry import added_names, load_module

Place = Literal["source", "x0", "picture"]
_ROOMS = ("", ".transfer", ".diffusion", ".motion", ".controls", ".masking", ".hooks")


def stage_module(kind: str) -> ModuleType:
    """The module of a kind of stage, of this package or another. Raises BadInput if it cannot be loaded."""
    place = _ours(kind)
    return load_module(sys.modules[__name__], kind) if place is None else import_module(place)


def added_stages() -> dict[str, ModuleType]:
    """The stages that other packages add, by name. Raises BadInput for a module that lacks what is named above."""
    found = {name: load_module(sys.modules[__name__], name) for name in added_names(sys.modules[__name__])}
    for name, module in found.items():
        lacks = [part for part in ("AT", "Settings", "open") if not hasattr(module, part)]
        if _ours(name) or lacks or module.AT not in get_args(Place):
            why = "the name is taken" if _ours(name) else f"no {', '.join(lacks)}" if lacks else f"AT is {module.AT!r}"
            raise BadInput(
                f"stage {name!r} of {module.__name__}: {why}. Expected a name of its own, AT (one of"
                f" {', '.join(get_args(Place))}), Settings and open. Mend or uninstall it"
            )
    return found


def _ours(kind: str) -> str | None:
    places = (f"{__name__}{room}.{kind}" for room in _ROOMS)
    return next((place for place in places if find_spec(place) is not None), None)
