"""Changing settings while frames flow: what may change, and what is decided when a graph is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.graph_plan import GraphPlan
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.stages.diffusion.attention import check_attention, in_weights
from warpfuse.stages.diffusion.prompts import Prompts


class NeedsRestart(ConfigError):
    """The key is right, but decides what was built: it holds from the next start on."""


LIVE = ("prompt", "negative", "loras", "strength", "steps", "stages", "pace")
"""Keys that may change between frames; the others are built in."""


@dataclass
class LiveSettings:
    """The settings of a graph that is open, and the keys they came from.

    keys    as they were given
    ends    keys that the graph was built with besides: source and sinks of a Pipeline
    prompts raises BadInput for what the bundle does not know
    attends its UNet sees tokens of earlier frames
    """

    keys: dict[str, Any]
    config: GraphConfig
    plan: GraphPlan
    calls: int
    prompts: Prompts
    live: bool = False
    attends: bool = False

    def changed(self, new: Mapping[str, Any]) -> GraphConfig:
        """Take new keys; returns the configuration that follows. Raises BadInput and then changes nothing."""
        self.keys, self.config = self.checked(new)
        return self.config

    def checked(self, new: Mapping[str, Any]) -> tuple[dict[str, Any], GraphConfig]:
        """The keys and the configuration that new keys would lead to. Raises BadInput."""
        merged = merge(self.keys, new)
        config = validate(merged)
        check_live(config, self.config)
        self._check_structure(config)
        self.prompts(config.prompt, config.negative, config.loras)
        check_attention(config.stages.predict.attention, self.attends)
        return merged, config

    def _check_structure(self, config: GraphConfig) -> None:
        """Raise NeedsRestart for what decides which stages there are, or what they were built with."""
        temporal = any(node.name == "flow" for node in self.plan.nodes)
        ends = {"source": self.config.source or "here", "sinks": self.config.sinks or ("here",), "workers": "one"}
        printed = any(node.name == "composite" for node in self.plan.nodes)
        followed = any(node.kind == "predict" and "motion" in node.inputs for node in self.plan.nodes)
        plan = plan_graph(
            config.model_copy(update=ends), temporal=temporal, calls=self.calls, printed=printed, attends=followed,
            live=self.live,
        )  # fmt: skip
        inner = [(node.name, node.inputs) for node in plan.nodes if node.role == "stage"]
        now = [(node.name, node.inputs) for node in self.plan.nodes if node.role == "stage"]
        was, wants = self.config.stages, config.stages
        built = [(s.fuse.reference, s.predict.stream, _pulled(s.fuse.between)) for s in (was, wants)]
        stream = wants.predict.stream and config.steps != self.config.steps
        unpaced = config.pace.active and not self.config.pace.active
        if inner != now or built[0] != built[1] or stream or (not temporal and (config.stages.fuse.weight or unpaced)):
            raise NeedsRestart(
                "this decides which stages there are and cannot change while frames flow: stages.fuse.reference;"
                " stages.fuse.between to or from latent and picture; stages.predict.stream, and with it steps;"
                " pace and fusion, if they were off at first; whether stages.fuse.entry or exit is 0, with output or a"
                " stream"
            )


def check_live(config: GraphConfig, was: GraphConfig) -> None:
    """Raise NeedsRestart for keys that cannot change while frames flow."""
    names = [name for name in GraphConfig.model_fields if name not in LIVE]
    changed = [name for name in names if getattr(config, name) != getattr(was, name)]
    if changed:
        raise NeedsRestart(f"{', '.join(changed)} cannot change while frames flow; live are: {', '.join(LIVE)}")


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with `new` on top, nested ones too; a new `fusion` replaces an old stages.fuse.weight and the reverse.

    A recipe of attention is the weights it stands for, so that a later key is laid over these.
    """
    new = _without_recipe(new)
    merged = _laid_over(_without_recipe(old), new)
    weight_given = "weight" in _dict(_dict(new.get("stages")).get("fuse"))
    if "fusion" in new and not weight_given:
        stages = _dict(merged.get("stages"))
        fuse = {k: v for k, v in _dict(stages.get("fuse")).items() if k != "weight"}
        merged["stages"] = {**stages, "fuse": fuse}
    elif weight_given and "fusion" not in new:
        merged.pop("fusion", None)
    return merged


def _laid_over(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        inner = merged.get(key)
        merged[key] = _laid_over(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _without_recipe(keys: Mapping[str, Any]) -> dict[str, Any]:
    stages = _dict(keys.get("stages"))
    predict = _dict(stages.get("predict"))
    try:
        weights = in_weights(predict["attention"])
    except (KeyError, ValueError):
        return dict(keys)  # none, or one that the validation that follows tells of
    return {**keys, "stages": {**stages, "predict": {**predict, "attention": weights}}}


def _dict(value: Any) -> dict[str, Any]:
    """What is no mapping is told by the validation that follows."""
    return value if isinstance(value, dict) else {}


def _pulled(between: str) -> str:
    """What `between` needs built; off and reference need nothing."""
    return between if between in ("latent", "picture") else ""
