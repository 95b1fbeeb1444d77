"""Which knob, key or pad of a MIDI controller does what. No device is touched here."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from warpfuse.stages.settings import StageSettings

Action = Literal["start", "stop", "pause", "record", "snapshot", "tap"]
"""What can be done to a run by one word."""

_TRIGGER = re.compile(r"\s*(cc|note) +(\d{1,3})(?: +channel +(\d{1,2}))?\s*")


def _in_one_form(value: Any) -> Any:
    """Trigger "cc 7", "note 36" or "note 36 channel 10"; without a channel on every one."""
    found = _TRIGGER.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[2]) > 127 or not 1 <= int(found[3] or 1) <= 16:
        raise ValueError(
            f"expected cc or note, a number from 0 to 127, and at will a channel from 1 to 16, as in 'cc 7' or 'note 36"
            f" channel 10', got {value!r}"
        )
    return f"{found[1]} {int(found[2])}" + (f" channel {int(found[3])}" if found[3] else "")


class MidiTarget(StageSettings):
    """What a knob, key or pad does: one of `key`, `look` and `do`.

    key    number or switch that may change while frames flow, as in stages.fuse.weight
    least, most  its range; none: the bounds of the key. A switch is on in the upper half
    look   look that is recalled when a key or pad is pressed
    do     start, stop, pause, record, snapshot or tap, when it is pressed; pause and record also end what they began
    over_s, over_beats  crossfade of a look
    """

    key: str = ""
    least: float | None = None
    most: float | None = None
    look: str = ""
    do: Action | None = None
    over_s: float = Field(0.0, ge=0, le=3600)
    over_beats: float = Field(0.0, ge=0, le=3600)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, raw: Any) -> Any:
        if not isinstance(raw, str):
            return raw
        if raw in get_args(Action):
            return {"do": raw}
        name, _, look = raw.partition(" ")
        return {"look": look.strip()} if name == "look" else {"key": raw}

    @model_validator(mode="after")
    def _one_of_them(self) -> "MidiTarget":
        given = [name for name in ("key", "look", "do") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"expected one of key, look and do, got {' and '.join(given) or 'none'}")
        if (self.over_s or self.over_beats) and (not self.look or (self.over_s and self.over_beats)):
            raise ValueError("a crossfade, over_s or over_beats, is for a look")
        if (self.least is not None or self.most is not None) and not self.key:
            raise ValueError("least and most are for a key")
        return self

    def recall(self) -> dict[str, Any]:
        """The keys that recall the look, as told."""
        how = {"over_s": self.over_s} if self.over_s else {"over_beats": self.over_beats} if self.over_beats else {}
        return {"look": self.look, **how}


Trigger = Annotated[str, BeforeValidator(_in_one_form)]
MidiMap = dict[Trigger, MidiTarget]
