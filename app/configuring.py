"""From flags and a graph file to a configuration. Flags override the file, the file overrides the defaults."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from warpfuse.graph.errors import ConfigError

if TYPE_CHECKING:
    from warpfuse.graph.config import GraphConfig

# Note: imports inside the functions, as in cli.py.


def configure(
    graph: Path | None, flags: dict[str, Any], settings: list[str] | None, defaults: dict[str, Any] | None = None
) -> "GraphConfig":
    """Keys of the file, over the defaults; of the flags over those; then `--set`. Raises ConfigError."""
    from warpfuse.graph.config import read_graph_file, set_key, validate

    raw = {**(defaults or {}), **(read_graph_file(graph) if graph is not None else {})}
    if flags.get("fusion") is not None and isinstance(raw.get("stages"), dict):
        fuse = raw["stages"].get("fuse")  # the flag overrides the file, in whichever of its two spellings
        if isinstance(fuse, dict):
            fuse.pop("weight", None)
    in_file = raw.get("loras")
    raw.update({key: value for key, value in flags.items() if value is not None})
    if flags.get("loras") and isinstance(in_file, dict):
        raw["loras"] = {**in_file, **flags["loras"]}  # one by one: a flag for one leaves the others as they are
    for assignment in settings or []:
        set_key(raw, assignment)
        if assignment.partition("=")[0].strip() == "stages.fuse.weight":
            raw.pop("fusion", None)
    return validate(raw, where=str(graph) if graph is not None and not flags else "")


def lora_scales(flags: list[str]) -> dict[str, str] | None:
    """{name: scale}, the scale not yet read; None where no flag was given. Raises ConfigError."""
    scales = {}
    for flag in flags:
        name, equals, scale = flag.rpartition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--lora {flag!r}: expected NAME=SCALE, as in ink=0.7")
        if name.strip() in scales:
            raise ConfigError(f"--lora {name.strip()} is given twice; give it once")
        scales[name.strip()] = scale.strip()
    return scales or None
