"""Looks and shows: what of the settings of a run is kept under a name, and what goes to another machine."""

from collections.abc import Mapping
from typing import Any

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.crossfade import OF_THE_SHOW

LOOK = (
    "bundle", "prompt", "negative", "loras", "controls", "images", "steps", "strength", "seed", "flow", "background",
    "pace", "mask", "stages",
)  # fmt: skip
"""Keys that decide how a frame looks. A look has all of them, so recalling it recalls the picture."""

_PORTABLE = {*LOOK, "fusion"}  # fusion stands for a key of stages in what is written by hand


def look_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The look of a run, from all its keys as plain types."""
    return {key: settings[key] for key in LOOK}


def show_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A graph file of the bundle, every look, tempo, schedule and MIDI map, without what is this machine's own."""
    looks = {name: {k: v for k, v in keys.items() if k in _PORTABLE} for name, keys in settings["looks"].items()}
    return {"bundle": settings["bundle"], **{key: settings[key] for key in OF_THE_SHOW}, "looks": looks}


def taken_from(show: Mapping[str, Any], bundle: str) -> dict[str, Any]:
    """The keys of a show file that a run of this bundle takes. Raises ConfigError: none, or it is of another bundle."""
    keys = {key: show[key] for key in OF_THE_SHOW if key in show}
    if not keys:
        raise ConfigError(f"this is no show: expected one of the keys {', '.join(OF_THE_SHOW)}")
    if show.get("bundle", bundle) != bundle:
        raise ConfigError(
            f"the show is of bundle {show['bundle']!r}, the run of {bundle!r}: start it with the show file"
        )
    return keys
