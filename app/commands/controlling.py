"""`warpfuse ctl`: requests to a run."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from warpfuse.engine.files import write_whole
from warpfuse.graph.errors import ConfigError

if TYPE_CHECKING:
    from warpfuse.graph.control.messages import Counts, RunFigures

_ACTIONS = (
    "set", "get", "tap", "save", "load", "learn", "stats", "pause", "resume", "snapshot", "stop", "streams", "add",
    "remove",
)  # fmt: skip
_LEARN_S = 30  # for who learns to move a knob


def ctl(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the run, shown when it starts.")],
    action: Annotated[str, typer.Argument(metavar="ACTION", help=", ".join(_ACTIONS))],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE ... | KEY | NAME | FILE | STREAM]")] = None,
    source: Annotated[str | None, typer.Option(help="add: source of the new stream.")] = None,
    sink: Annotated[list[str] | None, typer.Option(help="add: sink of the new stream (repeatable).")] = None,
    stream: Annotated[
        str, typer.Option(metavar="NAME", help="add: name of the stream; by default from its source.")
    ] = "",
    midi: Annotated[str, typer.Option(metavar="PORT", help="learn: the MIDI port, or a part of its name.")] = "",
) -> None:
    """Ask a run that is under way: change settings, pause, resume, figures, the picture shown last, its end.

    `get` prints the settings or one of them, `tap` takes the tempo from the Enter key. `save NAME` keeps the look as
    it is, `save FILE.yaml` writes the show (looks, tempo, schedule, MIDI), `load FILE.yaml` takes one. `learn KEY` has
    the next knob that moves turn this key; so `learn tap`, `learn "look storm"`.

    Of a run of several streams, `streams` lists them, `add` has one join and `remove` has one leave.
    """
    from warpfuse.graph.control import messages

    words = words or []
    if action in ("stats", "pause", "resume", "stop", "streams", "tap") and words:
        raise ConfigError(f"ctl {name} {action} takes nothing more, got {' '.join(words)!r}")
    if action != "add" and (source or sink or stream):
        raise ConfigError(f"ctl {name} {action}: --source, --sink and --stream are for add")
    if action != "learn" and midi:
        raise ConfigError(f"ctl {name} {action}: --midi is for learn")
    match action:
        case "add":
            _add(name, stream, source, sink or [], words)
        case "remove":
            if len(words) != 1:
                raise ConfigError(f"ctl {name} remove: expected the name of one stream, got {len(words)} words")
            messages.ask(name, messages.RemoveStream(words[0]), timeout_s=60)
        case "set":
            reply = messages.ask(name, messages.Set(_keys(words)), timeout_s=60)
            assert isinstance(reply, messages.Applied)
            print(f"version {reply.version} holds from frame {reply.seq} on")
        case "get":
            print(json.dumps(_at(name, words), indent=1))
        case "tap":
            _tap(name)
        case "save":
            _save(name, words)
        case "load":
            _load(name, words)
        case "learn":
            _learn(name, words, midi)
        case "stats":
            figures = messages.ask(name, messages.GetStats())
            assert isinstance(figures, messages.RunFigures)
            print(json.dumps(figures.stats, indent=1))
        case "streams":
            counts = messages.ask(name, messages.GetCounts())
            assert isinstance(counts, messages.Counts)
            Console().print(_listed(counts))
        case "snapshot":
            _snapshot(name, words)
        case "pause":
            messages.ask(name, messages.Pause())
        case "resume":
            messages.ask(name, messages.Resume())
        case "stop":
            messages.ask(name, messages.Stop())
        case _:
            raise ConfigError(f"ctl {name}: {action!r} is no action; known: {', '.join(_ACTIONS)}")


def _listed(counts: "Counts") -> Table:
    table = Table("stream", "size", "in", "out", "repeated", "dropped", "state", box=None)
    for stream, own in counts.streams.items():
        state = own.error or ("over" if own.over else "runs")
        frames = own.into, own.out, own.repeated, own.dropped
        table.add_row(stream, f"{own.size[0]}x{own.size[1]}", *map(str, frames), state)
    return table


def flows(name: str, seconds: float = 1.0) -> Table:
    """A table of the links of a run: frames a second, measured over some seconds, and times of frames on the link."""
    before, after = _figures(name), None
    time.sleep(seconds)
    after = _figures(name)
    home = {stage: worker for worker, stages in after.workers.items() for stage in stages}
    table = Table("link", "from", "to", "frames/s", "sent", "peak of slots", "hop ms p50", "p99", box=None)
    for link, now in after.stats["links"].items():
        sender, _, receiver = link.partition("->")
        rate = (now["sent"] - before.stats["links"].get(link, now)["sent"]) / (after.seconds - before.seconds)
        ends = home.get(sender, "?"), home.get(receiver.rpartition(".")[0], "?")
        hop = [f"{now[key]:.2f}" if key in now else "" for key in ("ms_p50", "ms_p99")]
        table.add_row(link, *ends, f"{rate:.1f}", str(now["sent"]), f"{now['peak']} of {now['slots']}", *hop)
    return table


def _figures(name: str) -> "RunFigures":
    from warpfuse.graph.control import messages

    figures = messages.ask(name, messages.GetStats())
    assert isinstance(figures, messages.RunFigures)
    return figures


def _keys(words: list[str]) -> dict[str, Any]:
    from warpfuse.graph.plan.raw_keys import set_key

    if not words:
        raise ConfigError("ctl NAME set: expected KEY=VALUE, as in stages.fuse.weight=0.8")
    keys: dict[str, Any] = {}
    for word in words:
        set_key(keys, word)
    anchor = (keys.get("stages") or {}).get("anchor") or {}
    for name in {"picture", "frame"} & anchor.keys():
        if isinstance(anchor[name], str) and anchor[name]:  # relative to this folder, as with `add`
            anchor[name] = str(Path(anchor[name]).expanduser().absolute())
    return keys


def _settings(name: str) -> dict[str, Any]:
    from warpfuse.graph.control import messages

    reply = messages.ask(name, messages.GetSettings())
    assert isinstance(reply, messages.Settings)
    return reply.keys


def _of_one_stream(name: str) -> dict[str, Any]:
    settings = _settings(name)
    if "streams" in settings:
        raise ConfigError(f"{name} has several streams: ask one of them, which says its own name when it starts")
    return settings


def _at(name: str, words: list[str]) -> Any:
    """All settings, or the value of one key."""
    if len(words) > 1:
        raise ConfigError(f"ctl {name} get: expected one KEY, as in stages.fuse.weight, got {len(words)} words")
    value: Any = _settings(name)
    for part in words[0].split(".") if words else ():
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        part_of: Any = int(part) if isinstance(value, list) and part.isdigit() else part
        if not isinstance(inner, dict) or part_of not in inner:
            known = f"; there are: {', '.join(map(str, inner))}" if isinstance(inner, dict) and inner else ""
            raise ConfigError(f"ctl {name} get {words[0]}: there is no {part!r}{known}")
        value = inner[part_of]
    return value


def _tap(name: str) -> None:
    from warpfuse.graph.control import messages
    from warpfuse.graph.plan.beats import TapTempo

    tempo = TapTempo()
    print("Enter on each beat, Ctrl-D at the end", file=sys.stderr)
    for _ in sys.stdin:
        bpm = tempo.tap(time.monotonic_ns())
        if bpm is not None:
            messages.ask(name, messages.Set({"bpm": bpm, "on_beat": True}))
            print(f"{bpm:g} beats a minute")


def _save(name: str, words: list[str]) -> None:
    import yaml

    from warpfuse.graph.control import messages
    from warpfuse.graph.plan.looks import look_of, show_of

    if len(words) != 1:
        raise ConfigError(f"ctl {name} save: expected the name of a look, or one FILE.yaml, got {len(words)} words")
    settings, path = _of_one_stream(name), Path(words[0])
    if path.suffix.lower() not in (".yaml", ".yml"):
        messages.ask(name, messages.Set({"looks": {words[0]: look_of(settings)}}), timeout_s=60)
        print(f"look {words[0]} is known until the run ends; ctl {name} save FILE.yaml keeps the show")
        return
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: the folder is missing")
    write_whole(path, yaml.safe_dump(show_of(settings), sort_keys=False, allow_unicode=True).encode())
    print(f"{path}: {len(settings['looks'])} looks")


def _load(name: str, words: list[str]) -> None:
    from warpfuse.graph.control import messages
    from warpfuse.graph.plan.looks import taken_from
    from warpfuse.graph.plan.raw_keys import read_graph_file

    if len(words) != 1:
        raise ConfigError(f"ctl {name} load: expected one FILE.yaml, got {len(words)} words")
    keys = taken_from(read_graph_file(Path(words[0])), _of_one_stream(name)["bundle"])
    messages.ask(name, messages.Set(keys), timeout_s=60)
    print(f"{name} has the show: looks {', '.join(keys.get('looks', {})) or 'none'}")


def _learn(name: str, words: list[str], port: str) -> None:
    from warpfuse.graph.control import messages
    from warpfuse.graph.plan.midi_keys import check_target
    from warpfuse.midi import first_moved, port_named

    if len(words) != 1 or not port:
        raise ConfigError(f"ctl {name} learn: expected KEY, tap or 'look NAME', and --midi PORT")
    check_target(words[0])
    port = port_named(port)  # before anybody is asked to move a knob of it
    print("move the knob, or press the pad", file=sys.stderr)
    trigger = first_moved(port, _LEARN_S)
    messages.ask(name, messages.Set({"midi": {trigger: words[0]}}))
    print(f"{trigger} is {words[0]}")


def _add(name: str, stream: str, source: str | None, sinks: list[str], words: list[str]) -> None:
    from warpfuse.graph.control import messages

    if source is None or not sinks:
        raise ConfigError(f"ctl {name} add: expected --source and --sink, as in --source camera:1 --sink door.mp4")
    # Paths are relative to this folder: the run may have been started in another one.
    keys = {**(_keys(words) if words else {}), "source": _absolute(source), "sinks": [_absolute(s) for s in sinks]}
    reply = messages.ask(name, messages.AddStream(stream, keys), timeout_s=60)
    assert isinstance(reply, messages.StreamAdded)
    print(f"stream {reply.name} has joined")


def _absolute(url: str) -> str:
    from warpfuse.stages.sources.schemes import path_of, scheme_of

    return str(path_of(url).absolute()) if scheme_of(url) == "file" else url


def _snapshot(name: str, words: list[str]) -> None:
    from warpfuse.graph.control import messages

    if len(words) != 1:
        raise ConfigError(f"ctl {name} snapshot: expected one FILE.png, got {len(words)} words")
    path = Path(words[0])
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: the folder is missing")
    image = messages.ask(name, messages.Snapshot())
    assert isinstance(image, messages.Image)
    write_whole(path, image.png)
