"""The keys that a knob, key or pad of a MIDI controller sets, and their ranges."""

from collections.abc import Mapping
from typing import Any

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.key_table import live_keys
from warpfuse.graph.plan.midi_map import MidiTarget
from warpfuse.graph.plan.raw_keys import nested

_BY_NAME = {"controls": (0.0, 1.0), "images": (0.0, 1.0), "loras": (0.0, 1.0)}  # scales of what a bundle has, by name


def keys_at(target: MidiTarget, share: float) -> dict[str, Any]:
    """The keys to set where a knob stands, 0..1. Raises ConfigError: no key that a knob can turn."""
    kind, least, most = range_of(target)
    number = least + (most - least) * share
    value: Any = share >= 0.5 if kind == "switch" else round(number) if kind == "whole" else round(number, 4)
    return nested(target.key.split("."), value)


def range_of(target: MidiTarget) -> tuple[str, float, float]:
    """Kind of the key, and the values at both ends of a knob. Raises ConfigError: a knob cannot turn it."""
    first, _, rest = target.key.partition(".")
    known = {key.key: key for key in live_keys()}
    if first in _BY_NAME and rest:
        kind, (least, most) = "number", _BY_NAME[first]
    elif target.key in known and known[target.key].kind in ("number", "whole", "switch"):
        kind, least, most = (getattr(known[target.key], name) for name in ("kind", "least", "most"))
    else:
        raise ConfigError(
            f"key {target.key!r}: expected a number or a switch that may change while frames flow, as in strength or"
            " stages.fuse.weight"
        )
    for end in (target.least, target.most):
        if end is not None and not (least if least is not None else end) <= end <= (most if most is not None else end):
            raise ConfigError(f"key {target.key!r} goes from {least} to {most}, got {end:g}")
    least = target.least if target.least is not None else least
    most = target.most if target.most is not None else most
    if kind == "switch":
        return kind, 0, 1
    if least is None or most is None:
        raise ConfigError(f"key {target.key!r} has no bounds of its own: give least and most")
    return kind, float(least), float(most)


def check_target(target: Any) -> None:
    """Raise ConfigError for what the key `midi` cannot have for a trigger, before it is known for which."""
    check_map(validate({"midi": {"cc 0": target}}).midi)


def check_map(midi: Mapping[str, MidiTarget]) -> None:
    """Raise ConfigError for a key that a knob cannot turn."""
    for trigger, target in midi.items():
        try:
            if target.key:
                range_of(target)
        except ConfigError as error:
            raise ConfigError(f"midi.{trigger}: {error}") from None
