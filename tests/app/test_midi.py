"""MIDI in, with a stand-in for the devices: knobs turn keys, pads do what they are mapped to, and both are learned."""

import json
import sys
import threading
from pathlib import Path

import pytest
from support.waiting import until
from typer.testing import CliRunner

from warpfuse.cli import app
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.raw_keys import merge
from warpfuse.midi import MidiInput, RunControls, controlled_by, first_moved, port_names

mido = pytest.importorskip("mido", reason="pip install 'warpfuse[midi]'")

from support import midi_ports  # noqa: E402  (it imports mido)


@pytest.fixture(autouse=True)
def devices():
    mido.set_backend("support.midi_ports")
    yield
    mido.set_backend()
    assert not midi_ports.OPEN, "every port is closed again"


class Desk:
    """What a page's session is to a controller; `done` has what was asked of it."""

    def __init__(self, midi):
        self.keys, self.done, self.on = {"midi": midi, "looks": {"a": {}}}, [], set()

    def midi_map(self):
        return validate(self.keys).midi

    def change(self, keys):
        changed = merge(self.keys, {key: value for key, value in keys.items() if key != "over_s"})
        validate(changed)
        self.done.append(keys)
        self.keys = changed

    def act(self, action, on=True):
        self.done.append((action, on))
        (self.on.add if on else self.on.discard)(action)

    def is_on(self, action):
        return action in self.on

    def tap(self, now_ns):
        self.done.append(("tap", now_ns))


@pytest.fixture
def desk():
    """desk(map) -> what a controller changes, and what was said; the last message of `end` has been taken."""
    stack = []

    def open_desk(midi):
        run, said = Desk(midi), []
        stack.append(MidiInput(run, "nano", said.append))
        stack[-1].__enter__()
        return run, said, stack[-1]

    yield open_desk
    for opened in stack:
        opened.__exit__()


def knob(number, value, channel=0):
    midi_ports.send("control_change", control=number, value=value, channel=channel)


def pad(note, velocity, channel=0):
    midi_ports.send("note_on", note=note, velocity=velocity, channel=channel)


def taken(run):
    """Everything that was sent so far has been taken: the pad behind it has."""
    before = len(run.done)
    midi_ports.send("note_on", note=127, velocity=100, channel=15)
    until(lambda: ("snapshot", True) in run.done[before:], "the pad behind it all")
    found = [one for one in run.done if one != ("snapshot", True)]
    run.on.discard("snapshot")
    return found


END = {"note 127 channel 16": "snapshot"}


def test_a_knob_turns_its_key_and_the_newest_of_its_messages_counts(desk):
    run, said, _ = desk({"cc 7": "strength", "cc 8 channel 2": "steps", **END})
    for value in range(128):
        knob(7, value)
    knob(8, 127, channel=1)
    knob(8, 0, channel=0)
    knob(99, 5)
    found = taken(run)
    strengths = [one["strength"] for one in found if "strength" in one]
    assert strengths[-1] == 1 and strengths == sorted(strengths)
    assert [one for one in found if "steps" in one] == [{"steps": 20}] and not said


def test_a_pad_does_it_once_for_each_press_and_ends_what_it_began(desk):
    run, _, _ = desk({"note 36": "record", "note 37": {"look": "a", "over_s": 2}, "cc 20": "tap", **END})
    for velocity in (90, 0, 90, 0):
        pad(36, velocity)
    midi_ports.send("note_on", note=37, velocity=1)
    midi_ports.send("note_off", note=37, velocity=64)
    for value in (127, 0, 127, 0):
        knob(20, value)
    found = taken(run)
    assert found[:3] == [("record", True), ("record", False), {"look": "a", "over_s": 2}]
    assert [one[0] for one in found[3:]] == ["tap", "tap"] and found[3][1] <= found[4][1]


def test_what_is_chosen_is_learned_by_the_next_knob_or_press(desk):
    run, said, midi = desk({"cc 7": "steps", **END})
    pad(60, 0)
    midi.learn("strength")
    pad(60, 0)
    knob(7, 64)
    taken(run)
    knob(7, 127)
    assert taken(run) == [{"midi": {"cc 7": "strength"}}, {"strength": 1}] and midi.learning is None
    assert said == ["MIDI: cc 7 is strength"]
    midi.learn({"look": "a", "over_s": 3})
    pad(41, 100)
    assert taken(run)[-1] == {"midi": {"note 41": {"look": "a", "over_s": 3}}}
    with pytest.raises(ConfigError, match="key 'stregth'"):
        midi.learn("stregth")
    midi.learn("strength")
    midi.learn(None)
    knob(90, 3)
    assert "cc 90" not in run.keys["midi"]


def test_what_is_refused_is_told_once_and_the_rest_goes_on(desk):
    run, said, _ = desk({"note 7": "look gone", "cc 8": "steps", **END})
    for velocity in (127, 0, 127):
        pad(7, velocity)
    knob(8, 0)
    assert taken(run)[-1] == {"steps": 1}
    assert len(said) == 1 and said[0] == "MIDI note 7: there is no look 'gone'; there are: a"


@pytest.mark.parametrize(
    ("port", "words"),
    [
        ("launch", "'launch' fits several of those there are: Nano Control 2 20:0, Launch Pad 24:0, Launch Key 28:0"),
        ("korg", "'korg' is none of those there are: Nano"),
    ],
)
def test_a_port_that_is_not_meant_clearly_is_told(port, words):
    with pytest.raises(ConfigError, match=words):
        MidiInput(Desk({}), port, print)


def test_a_machine_without_midi_is_told(monkeypatch):
    def broken(**_):
        raise OSError("no sequencer")

    monkeypatch.setattr(midi_ports, "get_devices", broken)
    mido.set_backend("support.midi_ports")
    with pytest.raises(ConfigError, match="this machine has no MIDI: no sequencer"):
        port_names()
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)["findings"]
    (ports,) = [one for one in found if one["name"] == "MIDI inputs"]
    assert not ports["found"] and not ports["needed"] and "no sequencer" in ports["detail"]


@pytest.mark.skipif(sys.platform != "linux" or Path("/dev/snd/seq").exists(), reason="this machine has MIDI")
def test_a_linux_without_a_sequencer_is_told_in_one_line_with_the_remedy(capfd):
    mido.set_backend("mido.backends.rtmidi")
    with pytest.raises(ConfigError, match=r"no MIDI, /dev/snd/seq is missing: sudo modprobe snd-seq$"):
        port_names()
    result = CliRunner().invoke(app, ["run", "--source", "pattern:64x64@25,frames=1", "--sink", "null:", "--midi", "a"])
    assert isinstance(result.exception, ConfigError) and "networks:" not in result.output, "before anything is opened"
    assert "ALSA" not in capfd.readouterr().err
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)["findings"]
    (ports,) = [one for one in found if one["name"] == "MIDI inputs"]
    assert ports["remedy"] == "sudo modprobe snd-seq"


def test_nobody_is_asked_to_move_a_knob_of_a_port_that_is_not_there():
    result = CliRunner().invoke(app, ["ctl", "desk", "learn", "strength", "--midi", "gone"])
    assert isinstance(result.exception, ConfigError) and "'gone' is none of those there are" in str(result.exception)
    assert "move the knob" not in result.output


def test_the_first_that_moves_is_told_and_a_key_that_is_let_go_is_none():
    found = []
    waiting = threading.Thread(target=lambda: found.append(first_moved("Launch Key", 60)))
    waiting.start()
    until(lambda: "Launch Key 28:0" in midi_ports.OPEN, "the port")
    midi_ports.send("note_off", "Launch Key 28:0", note=3)
    midi_ports.send("pitchwheel", "Launch Key 28:0", pitch=3)
    midi_ports.send("note_on", "Launch Key 28:0", note=4, velocity=9)
    waiting.join(60)
    assert found == ["note 4"]
    with pytest.raises(ConfigError, match="nothing moved on Launch Key 28:0 within 0 s"):
        first_moved("Launch Key", 0)


class Run:
    """A run without a page."""

    def __init__(self):
        self.keys, self.paused, self.stopped = {"midi": {"cc 7": "strength"}}, False, False
        self.streams = {"": self}

    def settings(self):
        return validate(self.keys).model_dump(mode="json")

    def change(self, keys):
        self.keys = merge(self.keys, {key: value for key, value in keys.items() if key != "on_beat"})

    def pause(self):
        self.paused = True

    def resume(self):
        self.paused = False

    def stop(self):
        self.stopped = True


def test_a_run_without_a_page_is_controlled_too():
    run, said = Run(), []
    pads = {"note 1": "pause", "note 2": "record", "note 3": "tap", "note 9": "stop"}
    run.change({"midi": pads})
    with controlled_by("nano", RunControls(run), said.append):
        knob(7, 0)
        for note in (1, 2, 3, 3, 9):
            pad(note, 100)
            pad(note, 0)
        until(lambda: run.stopped, "the last pad")
    assert run.keys["strength"] == 0 and run.paused and "bpm" in run.keys
    assert said == [
        "MIDI: Nano Control 2 20:0 is listened to",
        "MIDI note 2: record is done by the page: warpfuse serve, or run --page",
    ]
