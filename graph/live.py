"""The keys of a run while it goes on: which may change between two frames, and how a change is laid over them."""

from typing import Any

from warpfuse.graph.config import GraphConfig, validate
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan import plan_graph
from warpfuse.graph.run import Running

LIVE = ("prompt", "negative", "loras", "strength", "steps", "stages", "pace")
"""Keys that may change between frames; the others are built in."""


class NeedsRestart(ConfigError):
    """The key is right, but decides what was built: it holds from the next start on."""


class LiveKeys:
    """What a run was told, as the raw keys of a graph file, and what that comes to. One thread at a time.

    keys    as given; changes are laid over them
    config  the same, validated
    """

    def __init__(self, keys: dict[str, Any]) -> None:
        self.keys = keys
        self.config = validate(keys)

    def change(self, keys: dict[str, Any], running: Running | None) -> int | None:
        """Lay keys over what is there; frames read from now on obey. Returns the version they carry; without `running`
        None, and the keys hold for the frames of a run that is still to be opened.

        Raises NeedsRestart for a key that is built in, BadInput for one that cannot be used; then nothing changed."""
        laid = merged(self.keys, keys)
        config = validate(laid)
        version = None
        _check_keys(self.config, config)
        if running is not None:
            _check_structure(config, running)
            running.materials.prompts(config.prompt, config.negative, config.loras)
            version = running.book.publish(config)
        self.keys, self.config = laid, config
        return version


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Keys with `new` on top, nested ones too; a new `fusion` replaces an old stages.fuse.weight and the reverse."""
    laid = dict(old)
    for key, value in new.items():
        inner = laid.get(key)
        laid[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    weight_given = "weight" in (_dict(_dict(new.get("stages")).get("fuse")))
    if "fusion" in new and not weight_given:
        stages = dict(_dict(laid.get("stages")))
        stages["fuse"] = {k: v for k, v in _dict(stages.get("fuse")).items() if k != "weight"}
        laid["stages"] = stages
    elif weight_given and "fusion" not in new:
        laid.pop("fusion", None)
    return laid


def _dict(value: Any) -> dict[str, Any]:
    """What is no mapping is told by the validation that follows."""
    return value if isinstance(value, dict) else {}


def _check_keys(was: GraphConfig, wants: GraphConfig) -> None:
    changed = [
        name for name in GraphConfig.model_fields if name not in LIVE and getattr(wants, name) != getattr(was, name)
    ]
    if changed:
        raise NeedsRestart(f"{', '.join(changed)} cannot change while frames flow; live are: {', '.join(LIVE)}")


def _check_structure(config: GraphConfig, running: Running) -> None:
    """Raise NeedsRestart for what decides which stages there are, or what they were built with."""
    built = running.materials.config
    ends = {"source": built.source, "sinks": built.sinks}
    plan = plan_graph(config.model_copy(update=ends), temporal=running.temporal, calls=running.calls)
    nodes = [(node.name, node.inputs) for node in plan.nodes]
    was, wants = built.stages, config.stages
    decided = [(s.fuse.reference, s.predict.stream, _pulled(s.fuse.between)) for s in (was, wants)]
    stream = wants.predict.stream and config.steps != built.steps
    if nodes != [(node.name, node.inputs) for node in running.plan.nodes] or decided[0] != decided[1] or stream:
        raise NeedsRestart(
            "this decides which stages there are and cannot change while frames flow: stages.fuse.reference;"
            " stages.fuse.between to or from latent and picture; stages.predict.stream, and with it steps;"
            " pace, if it was off at first; whether stages.fuse.entry or exit is 0, with output or a stream"
        )


def _pulled(between: str) -> str:
    """What `between` needs built; off and reference need nothing."""
    return between if between in ("latent", "picture") else ""
