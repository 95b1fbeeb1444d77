"""What happens to a frame: sources, flow, encode, predict, warp, fuse, decode, sinks, and the sampling mathematics.

A stage is a module with `open(opening) -> Stage` (`stage.py`); one whose settings may change while frames flow has
`settings_of(config, prompts)` too. The name of the module is the kind of the stage. Which stages there are, and in
which order a frame meets them, is `graph/plan/dataflow.py`.

Other packages add a stage by an entry point of `warpfuse.stages`. Its module says besides

    AT = "picture"       what it takes and gives back changed: "source" (the `Picture` that came up to the device), "x0"
                         (the `Latent` that was predicted) or "picture" (the `Picture` about to be shown)
    Settings             a `StageSettings` with its keys

Its one input is called `frame`. A run has it where its configuration names it, as in `stages: {NAME: {amount: 0.3}}`.

What sources, sinks and the graph need of time and threads stands once, in `timing.py`: the newest value (`Latest`), a
wake-up for pollers (`Waker`), pauses between tries (`Backoff`), times of one clock on another (`ClockMap`), ticks at a
constant rate (`Ticker`). What a file is written with is `engine/files.py`.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Literal, get_args

from warpfuse.engine.errors import BadInput
from warpfuse.engine.registry import added_names, load_module

Place = Literal["source", "x0", "picture"]
_ROOMS = ("", ".diffusion", ".motion", ".controls", ".masking")


def stage_module(kind: str) -> ModuleType:
    """The module of a kind of stage, ours or of another package. Raises BadInput for one that cannot be loaded."""
    place = _ours(kind)
    return load_module(sys.modules[__name__], kind) if place is None else import_module(place)


def added_stages() -> dict[str, ModuleType]:
    """Stages that other packages add, by name. Raises BadInput for one that is not as told above."""
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
