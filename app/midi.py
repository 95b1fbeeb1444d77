"""MIDI in: the knobs, keys and pads of a controller change a run, and are learned by moving them."""

import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from warpfuse.engine.errors import WarpfuseError, one_line
from warpfuse.graph.control.run import Run
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.beats import TapTempo
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.midi_keys import check_target, keys_at
from warpfuse.graph.plan.midi_map import Action, MidiTarget
from warpfuse.graph.runtime.context import Say
from warpfuse.refusals import Refusals

_SEQUENCER = "/dev/snd/seq"
_PRESSED = 0.5  # a pad that sends a controller sends 127 and 0


class Controlled(Protocol):
    """What a controller changes: a run, with a page around it or without."""

    def midi_map(self) -> Mapping[str, MidiTarget]:
        """What does what now."""

    def change(self, keys: dict[str, Any]) -> object:
        """Change some keys of the settings. Raises BadInput."""

    def act(self, action: Action, on: bool = True) -> object:
        """Do what a word stands for. Raises WarpfuseError."""

    def is_on(self, action: Action) -> bool:
        """The run pauses, or records."""

    def tap(self, now_ns: int) -> object:
        """Tap the tempo. Raises BadInput."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What moved: a knob, a key or a pad. share: 0..1, where it stands; of a key how hard it is pressed, 0: let go."""

    kind: str
    number: int
    channel: int
    share: float
    at_ns: int

    @property
    def trigger(self) -> str:
        """As a map names it, on every channel."""
        return f"{self.kind} {self.number}"


class MidiInput:
    """Takes what a port brings in a thread of its own. A context manager.

    port      name of the port
    learning  what the next knob or key that moves will do; None: it does what it is mapped to
    """

    def __init__(self, run: Controlled, port: str, say: Say) -> None:
        """Open a port by its name, or a part of it. Raises ConfigError."""
        self.learning: Any = None
        self._run, self._say = run, say
        self._moved: queue.SimpleQueue[Moved | None] = queue.SimpleQueue()
        self._held: set[str] = set()  # triggers that are pressed
        self._complain = Refusals(say)
        self.port, self._input = _opened(port, self._moved.put)
        self._thread = threading.Thread(target=self._serve, name="wf:midi", daemon=True)

    def __enter__(self) -> "MidiInput":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        self._moved.put(None)
        self._thread.join()

    def learn(self, target: Any) -> None:
        """Have the next knob or key that moves do this: see `MidiTarget`; None: learn no more. Raises ConfigError."""
        if target is not None:
            check_target(target)
        self.learning = target

    def _serve(self) -> None:
        while (moved := self._moved.get()) is not None:
            batch = [moved]
            while not self._moved.empty():
                following = self._moved.get()
                if following is None:
                    return
                batch.append(following)
            for one in _newest_of_each_knob(batch):
                self._take(one)

    def _take(self, moved: Moved) -> None:
        try:
            known = self._run.midi_map()
        except WarpfuseError as error:  # the run is ending
            self._complain(f"MIDI {moved.trigger}: {error}")
            return
        trigger = f"{moved.trigger} channel {moved.channel}"
        trigger = trigger if trigger in known else moved.trigger
        pressed = moved.share >= _PRESSED if moved.kind == "cc" else moved.share > 0
        begun = pressed and (moved.kind == "note" or trigger not in self._held)
        (self._held.add if pressed else self._held.discard)(trigger)
        try:
            if self.learning is not None and (moved.kind == "cc" or begun):
                target, self.learning = self.learning, None
                self._run.change({"midi": {moved.trigger: target}})
                self._say(f"MIDI: {moved.trigger} is {target if isinstance(target, str) else dict(target)}")
            elif (known_target := known.get(trigger)) is not None:
                self._do(known_target, moved, begun)
        except WarpfuseError as error:
            self._complain(f"MIDI {trigger}: {error}")

    def _do(self, target: MidiTarget, moved: Moved, begun: bool) -> None:
        if target.key:
            self._run.change(keys_at(target, moved.share if moved.kind == "cc" else float(moved.share > 0)))
        elif not begun:
            return
        elif target.look:
            self._run.change(target.recall())
        elif target.do == "tap":
            self._run.tap(moved.at_ns)
        elif target.do is not None:
            self._run.act(target.do, not self._run.is_on(target.do))


class RunControls:
    """A run without a page, as a controller changes it."""

    def __init__(self, run: Run) -> None:
        self._run, self._tempo = run, TapTempo()

    def midi_map(self) -> Mapping[str, MidiTarget]:
        """As `Controlled` says."""
        settings = next((run.settings() for run in self._run.streams.values()), {})
        return validate({"midi": settings.get("midi", {})}).midi

    def change(self, keys: dict[str, Any]) -> object:
        """As `Controlled` says."""
        return self._run.change(keys)

    def act(self, action: Action, on: bool = True) -> None:
        """As `Controlled` says; starting, recording and snapshots are the page's. Raises ConfigError for these."""
        if action == "pause":
            (self._run.pause if on else self._run.resume)()
        elif action == "stop":
            self._run.stop()
        else:
            raise ConfigError(f"{action} is done by the page: warpfuse serve, or run --page")

    def is_on(self, action: Action) -> bool:
        """As `Controlled` says."""
        return action == "pause" and self._run.paused

    def tap(self, now_ns: int) -> None:
        """As `Controlled` says."""
        bpm = self._tempo.tap(now_ns)
        if bpm is not None:
            self._run.change({"bpm": bpm, "on_beat": True})


@contextmanager
def controlled_by(port: str, run: Controlled, say: Say) -> Iterator[MidiInput]:
    """Within the block, a port changes a run. Raises ConfigError."""
    with MidiInput(run, port, say) as midi:
        say(f"MIDI: {midi.port} is listened to")
        yield midi


def port_names() -> list[str]:
    """The MIDI inputs of this machine. Raises ConfigError: a package or the system's MIDI is missing."""
    try:
        import mido

        _check_sequencer(mido.backend)
        return list(mido.get_input_names())
    except ImportError as error:
        raise ConfigError(f"MIDI needs the package {error.name}: pip install 'warpfuse[midi]'") from None
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  (each system's backend has errors of its own)
        raise ConfigError(f"this machine has no MIDI: {one_line(error)}") from None


def first_moved(port: str, timeout_s: float) -> str:
    """The trigger of the first knob that moves or key that is pressed. Raises ConfigError: none did in time."""
    moved: queue.SimpleQueue[Moved | None] = queue.SimpleQueue()
    name, opened = _opened(port, moved.put)
    try:
        end = time.monotonic() + timeout_s
        while True:
            one = moved.get(timeout=max(0.0, end - time.monotonic()))
            if one is not None and (one.kind == "cc" or one.share > 0):
                return one.trigger
    except queue.Empty:
        raise ConfigError(f"nothing moved on {name} within {timeout_s:g} s") from None
    finally:
        opened.close()


def port_named(port: str) -> str:
    """The name of the port that is meant by its name or a part of it. Raises ConfigError."""
    names = port_names()
    exact = [name for name in names if name == port]
    found = exact or [name for name in names if port.casefold() in name.casefold()]
    if len(found) != 1:
        why = "fits several of" if found else "is none of"
        raise ConfigError(f"MIDI port {port!r} {why} those there are: {', '.join(names) or 'none; plug one in'}")
    return found[0]


def _check_sequencer(backend: Any) -> None:
    """Raise ConfigError where ALSA's sequencer is missing: the library would print a line of its own on top."""
    if sys.platform == "linux" and backend.name == "mido.backends.rtmidi" and backend.api in (None, "", "LINUX_ALSA"):
        if not Path(_SEQUENCER).exists():
            raise ConfigError(f"this machine has no MIDI, {_SEQUENCER} is missing: sudo modprobe snd-seq")


def _opened(port: str, put: Any) -> tuple[str, Any]:
    """The name and the input of the port that is meant; `put` is called with what moves. Raises ConfigError."""
    name = port_named(port)

    import mido

    def heard(message: Any) -> None:
        moved = _read(message)
        if moved is not None:
            put(moved)

    try:
        return name, mido.open_input(name, callback=heard)
    except Exception as error:  # noqa: BLE001  (as above)
        raise ConfigError(f"MIDI port {name!r} cannot be opened: {one_line(error)}") from None


def _read(message: Any) -> Moved | None:
    """What a message says of a knob or a key; None: of neither."""
    now_ns = time.monotonic_ns()
    match message.type:
        case "control_change":
            return Moved("cc", message.control, message.channel + 1, message.value / 127, now_ns)
        case "note_on":
            return Moved("note", message.note, message.channel + 1, message.velocity / 127, now_ns)
        case "note_off":
            return Moved("note", message.note, message.channel + 1, 0.0, now_ns)
    return None


def _newest_of_each_knob(batch: list[Moved]) -> list[Moved]:
    """Of a knob that moved on and on where it stands now, as a run cannot follow every step; every press of a key.

    A knob at either end stays in: a pad that sends a controller was pressed or let go."""
    last = {(one.trigger, one.channel): number for number, one in enumerate(batch)}
    return [
        one
        for number, one in enumerate(batch)
        if one.kind == "note" or one.share in (0, 1) or last[one.trigger, one.channel] == number
    ]
