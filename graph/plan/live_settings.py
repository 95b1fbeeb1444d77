"""Changing settings while frames flow: which keys may change, and which are fixed when a graph is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.crossfade import LIVE, Timed, check_prompt, timed
from warpfuse.graph.plan.cues import check_cues
from warpfuse.graph.plan.graph_plan import GraphPlan
from warpfuse.graph.plan.midi_keys import check_map
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.raw_keys import merge, recalled
from warpfuse.stages.diffusion.settings import check_attention, check_cache
from warpfuse.stages.motion.keyframe_file import check_keyframe

if TYPE_CHECKING:  # torch is not needed to check settings
    from warpfuse.stages.diffusion.prompts import Prompts


class NeedsRestart(ConfigError):
    """The key is valid but fixed when a graph is built: it takes effect at the next start."""


@dataclass
class LiveSettings:
    """The settings of an open graph, and the keys from which they were made.

    keys     as given by the user
    config   the settings
    plan     the graph that was built
    calls    network calls a frame
    prompts  encodes prompts; raises BadInput for what the bundle does not know
    live     the source is live
    attends  the UNet of the bundle has attention to earlier frames
    splits   its UNet is split at the deep feature
    """

    keys: dict[str, Any]
    config: GraphConfig
    plan: GraphPlan
    calls: int
    prompts: "Prompts"
    live: bool = False
    attends: bool = False
    splits: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a cue of the schedule that cannot hold while frames flow."""
        check_cues(self.config, self._check)

    def changed(self, new: Mapping[str, Any]) -> GraphConfig:
        """Adopt new keys and return the resulting configuration. Raises BadInput, and then nothing has changed."""
        self.keys, self.config = self.checked(new)
        return self.config

    def timed(self, new: Mapping[str, Any]) -> Timed:
        """The change that `new` stands for, with the keys of a look in place of its name. Raises ConfigError."""
        looks = new.get("looks")
        known = {**self.config.looks, **(looks if isinstance(looks, dict) else {})}
        return timed(recalled(new, known, self.keys), self.config.bpm)

    def checked(self, new: Mapping[str, Any]) -> tuple[dict[str, Any], GraphConfig]:
        """The keys and the configuration that would result from new keys. Raises BadInput."""
        change = self.timed(new)
        merged = merge(self.keys, change.keys)
        config = validate(merged)
        check_prompt(change, self.config)
        check_prompt(change, config)
        self._check(config)
        check_cues(config, self._check)
        return merged, config

    def _check(self, config: GraphConfig) -> None:
        """Raise BadInput for what cannot hold while frames flow."""
        check_live(config, self.config)
        self._check_structure(config)
        self.prompts(config.prompt, config.negative, config.loras, config.images)
        check_attention(config.stages.predict.attention, self.attends)
        check_cache(config.stages.predict.cache_deep, self.splits)
        check_keyframe(config.stages.anchor)
        check_map(config.midi)

    def _check_structure(self, config: GraphConfig) -> None:
        """Raise NeedsRestart for a change of the set of stages, or of settings that stages are built with."""
        # Hooks never change, and their file may have: it was read when the graph was built.
        ends = {
            "source": self.config.source or "here",
            "sinks": self.config.sinks or ("here",),
            "workers": "one",
            "hooks": "",
        }
        printed = any(node.name == "composite" for node in self.plan.nodes)
        keyed = any(node.kind == "apply_keyframe" for node in self.plan.nodes)
        anchored = any(node.name == "anchor" for node in self.plan.nodes)
        followed = any(node.kind == "predict" and "motion" in node.inputs for node in self.plan.nodes)
        flows = any(node.name == "flow" for node in self.plan.nodes)
        temporal = any(node.kind == "warp" for node in self.plan.nodes) or (flows and not followed)
        plan = plan_graph(
            config.model_copy(update=ends), temporal=temporal, calls=self.calls, printed=printed, remembers=followed,
            anchored=anchored, keyed=keyed, live=self.live,
        )  # fmt: skip
        if {n: c.built for n, c in config.controls.items()} != {n: c.built for n, c in self.config.controls.items()}:
            raise NeedsRestart(
                "which controls there are, of which kind, and the file of a picture cannot change while frames flow;"
                " live are their scale, window and thresholds. Begin with a scale of 0 for one that is to come later"
            )
        inner = [(node.name, node.kind, node.inputs) for node in plan.nodes if node.role == "stage"]
        there = [node for node in self.plan.nodes if node.role == "stage" and node.kind != "hook"]
        now = [(node.name, node.kind, node.inputs) for node in there]
        was, wants = self.config.stages, config.stages
        built = [(s.fuse.reference, s.predict.stream, s.encode, s.fuse.pulls) for s in (was, wants)]
        masks = [(c.mask.kind, c.mask.of, c.mask.transparent) for c in (self.config, config)]
        stream = wants.predict.stream and config.steps != self.config.steps
        unpaced = config.pace.active and not self.config.pace.active
        differs = inner != now or built[0] != built[1] or masks[0] != masks[1]
        if differs or stream or (not temporal and (wants.fuse.asks_past or unpaced)):
            raise NeedsRestart(
                "this decides which stages there are and cannot change while frames flow: mask.kind, of and a"
                " transparent rest; stages.fuse.reference; stages.fuse.between to or from latent and picture;"
                " stages.encode; stages.predict.stream, and with it steps; pace, fusion, a keyframe and what is taken"
                " from an anchor, if they were off at first; whether stages.fuse.entry or exit is 0, with output or a"
                " stream"
            )


def check_live(config: GraphConfig, was: GraphConfig) -> None:
    """Raise NeedsRestart for keys that cannot change while frames flow."""
    names = [name for name in GraphConfig.model_fields if name not in LIVE]
    changed = [name for name in names if getattr(config, name) != getattr(was, name)]
    if changed:
        raise NeedsRestart(f"{', '.join(changed)} cannot change while frames flow; live are: {', '.join(LIVE)}")
