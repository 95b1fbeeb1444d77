"""Making a configuration from flags and a graph file. Flags override the file, the file overrides the defaults."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warpfuse.graph.errors import ConfigError

if TYPE_CHECKING:
    from warpfuse.graph.plan.config import GraphConfig
    from warpfuse.graph.plan.streams import Streams

# Note: imports inside the functions, as in cli.py.


def configure(
    graph: Path | None, flags: dict[str, Any], settings: list[str] | None, defaults: dict[str, Any] | None = None
) -> "GraphConfig":
    """The configuration of one stream. Raises ConfigError, also for several streams."""
    from warpfuse.graph.plan.streams import Streams

    config = configure_any(graph, flags, settings, defaults)
    if isinstance(config, Streams):
        raise ConfigError("several streams are for `warpfuse run` and `serve`: give this command one source")
    return config


def configure_any(
    graph: Path | None, flags: dict[str, Any], settings: list[str] | None, defaults: dict[str, Any] | None = None
) -> "GraphConfig | Streams":
    """The configuration of one stream, or of the streams in the file or of several `--source`. Raises ConfigError.

    graph     graph file
    flags     values of flags by key; None: not given
    settings  values of `--set`, KEY=VALUE
    defaults  values for keys that are in none of these
    """
    from warpfuse.graph.plan.config import validate
    from warpfuse.graph.plan.raw_keys import read_graph_file, set_key
    from warpfuse.graph.plan.streams import from_flags, is_of_several, read_streams

    raw = read_graph_file(graph) if graph is not None else {}
    sources = flags.get("source") or []
    if len(sources) > 1:
        if "streams" in raw:
            raise ConfigError(f"{graph} has streams of its own: leave --source out, or the file")
        raw["streams"] = from_flags(sources, flags.get("sinks") or [])
        raw = {key: value for key, value in raw.items() if key not in ("source", "sinks")}
        flags = {**flags, "source": None, "sinks": None}
    else:
        flags = {**flags, "source": sources[0] if sources else None}
    flags = {key: value for key, value in flags.items() if value is not None}
    raw = _with_flags(raw, flags)
    for assignment in settings or []:
        set_key(raw, assignment)
        if assignment.partition("=")[0].strip() == "stages.fuse.weight":
            raw.pop("fusion", None)
    where = str(graph) if graph is not None and not flags else ""
    if is_of_several(raw):
        return read_streams(raw, where)
    return validate({**(defaults or {}), **raw}, where)


def keys_of(config: "GraphConfig | Streams") -> dict[str, Any]:
    """The keys from which a configuration can be made again, in plain types."""
    from warpfuse.graph.plan.streams import Streams

    return config.keys if isinstance(config, Streams) else config.model_dump(mode="json", exclude_defaults=True)


def with_sink(
    graph: Path | None, flags: dict[str, Any], settings: list[str] | None, say: Callable[[str], None]
) -> tuple[Path | None, dict[str, Any], list[str] | None]:
    """The arguments, with a sink beside the source if that is a single file and there is neither graph file nor sink.

    say  is called with a line about this sink
    """
    sources = flags.get("source") or []
    if graph is None and len(sources) == 1 and not flags.get("sinks") and not _sets(settings, "sinks"):
        from warpfuse.stages.sources.schemes import path_of, scheme_of

        if scheme_of(sources[0]) == "file" and path_of(sources[0]).is_file():
            sink = _beside(path_of(sources[0]))
            say(f"no sink was given: writing {sink}")
            flags = {**flags, "sinks": [str(sink)]}
    return graph, flags, settings


def _sets(settings: list[str] | None, key: str) -> bool:
    return any(one.partition("=")[0].strip() == key for one in settings or [])


def _beside(source: Path) -> Path:
    """A new path such as `holiday_styled.mp4`, numbered if that exists, with the container of the source if that can be
    written."""
    from warpfuse.stages.sinks.encoder import FORMATS

    ending = source.suffix if source.suffix.lower() in FORMATS else ".mp4"
    for number in itertools.count(1):
        sink = source.with_name(f"{source.stem}_styled{f'-{number}' if number > 1 else ''}{ending}")
        if not sink.exists():
            return sink
    raise AssertionError("numbers do not end")


def named_scales(flag: str, given: list[str]) -> dict[str, str] | None:
    """{name: scale} of a repeated flag NAME=SCALE, with scales as text; None: not given. Raises ConfigError."""
    scales = {}
    for text in given:
        name, equals, scale = text.rpartition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{flag} {text!r}: expected NAME=SCALE, as in ink=0.7")
        if name.strip() in scales:
            raise ConfigError(f"{flag} {name.strip()} is given twice; give it once")
        scales[name.strip()] = scale.strip()
    return scales or None


def named_pictures(flag: str, given: list[str]) -> dict[str, dict[str, str]] | None:
    """{name: keys} of a repeated flag NAME=FILE[:SCALE], with scales as text; None: not given.

    A colon that is not followed by a number is part of the file's name. Raises ConfigError.
    """
    pictures: dict[str, dict[str, str]] = {}
    for text in given:
        name, _, file = text.partition("=")
        name, file = name.strip(), file.strip()
        if not name or not file:
            raise ConfigError(f"{flag} {text!r}: expected NAME=FILE or NAME=FILE:SCALE, as in look=starry.jpg:0.6")
        if name in pictures:
            raise ConfigError(f"{flag} {name} is given twice; give it once")
        front, colon, scale = file.rpartition(":")
        is_scale = bool(colon and front and _is_number(scale))
        pictures[name] = {"picture": front, "scale": scale} if is_scale else {"picture": file}
    return pictures or None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _with_flags(raw: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    from warpfuse.graph.plan.raw_keys import merge

    if flags.get("fusion") is not None and isinstance(raw.get("stages"), dict):
        fuse = raw["stages"].get("fuse")  # fusion is also spelled stages.fuse.weight, which the flag overrides
        if isinstance(fuse, dict):
            fuse.pop("weight", None)
    named = {
        key: flags[key]
        for key in ("loras", "controls", "images", "stages")
        if flags.get(key) and isinstance(raw.get(key), dict)
    }
    raw.update({key: value for key, value in flags.items() if key not in named})
    return merge(raw, named) if named else raw  # merged, so that a flag for one name keeps the others
