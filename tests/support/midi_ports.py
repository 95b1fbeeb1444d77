"""A backend of mido without a device: `mido.set_backend("support.midi_ports")`. `send` is what a controller does."""

from typing import Any

import mido
from mido.ports import BaseInput

NAMES = ["Nano Control 2 20:0", "Launch Pad 24:0", "Launch Key 28:0"]
OPEN: dict[str, "Input"] = {}


class Input(BaseInput):
    """An input that `send` feeds."""

    def _open(self, callback: Any = None, **options: Any) -> None:
        self.callback = callback
        OPEN[self.name] = self

    def _close(self) -> None:
        OPEN.pop(self.name, None)


def get_devices(**_: Any) -> list[dict[str, Any]]:
    """As a backend of mido says."""
    return [{"name": name, "is_input": True, "is_output": False} for name in NAMES]


def send(kind: str, name: str = NAMES[0], **about: int) -> None:
    """Move a knob (control_change), press or let go a key (note_on, note_off)."""
    OPEN[name].callback(mido.Message(kind, **about))
