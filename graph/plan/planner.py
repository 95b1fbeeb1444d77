"""The dataflow graph of a configuration: which stages, which lanes, which links, how many slots. Nothing is opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from warpfuse.graph.links.link_plan import LinkPlan, Policy
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.dataflow import pass_frame
from warpfuse.graph.plan.graph_plan import GraphPlan, NodePlan, Role, Value
from warpfuse.graph.plan.placement import Rendezvous, place
from warpfuse.stages import Place, added_stages
from warpfuse.stages.hooks.hooks_file import functions_of
from warpfuse.stages.sinks import wants_raw, wants_sound
from warpfuse.stages.sources import has_sound

IN_FLIGHT = 2
"""Frames of a live source on their way at once: while one is in the networks, the next is uploaded and encoded."""

VIEWER = "page:"
"""URL of the sink of a viewer of the run in its own process, such as the control page."""

SOUND = "sound"
"""The input of a sink that takes the sound of a live source, by a bypass."""
_GIVES: dict[str, Place] = {"upload": "source", "predict": "x0"}  # what stages of other packages may take
_SOUND_WAITS = 16  # pieces, one a picture: what a sink's process may be late by


def plan_graph(
    config: GraphConfig,
    *,
    temporal: bool | None = None,
    calls: int | None = None,
    printed: bool = False,
    remembers: bool = False,
    anchored: bool = False,
    keyed: bool | None = None,
    live: bool = False,
    folder: str = "",
) -> GraphPlan:
    """The graph of a configuration: what `dataflow.pass_frame` calls, in its workers and lanes.

    temporal  build the branches of the past; none: only if something of it is fused or frames may be held.
              Without them every frame is styled on its own, and nothing waits for the picture before.
    calls     network calls of a frame, K; none: as many as steps
    printed   the bundle draws lines and prints in inks (`BundleFile.printed`)
    remembers its UNet can take something of earlier frames along the flow (`BundleFile.remembers`)
    anchored  build the flow to the anchor; else only if the configuration takes something from it
    keyed     build what shows a keyframe; none: if there is one, and for one given later wherever `temporal` asks for
              the past, unless workers are named, which knew nothing of its stages
    live      frames of the source cannot wait: few are on their way at once, and the newest is taken next
    folder    of the sockets between workers; needed to open the graph, not to draw it
    """
    k = calls or config.steps
    given = bool(config.stages.anchor.picture)
    if keyed is None:
        keyed = bool(temporal) and not isinstance(config.workers, dict)
    keyed = given or (keyed and config.stages.fuse.reference != "latent")
    if temporal is None:
        temporal = config.stages.fuse.asks_past or config.pace.active or given
    anchored = anchored or keyed or config.stages.fuse.asks_anchor
    recorder = _Recorder(config)
    pass_frame(
        recorder.call,
        config,
        k,
        temporal=temporal,
        printed=printed,
        remembers=remembers,
        anchored=anchored,
        keyed=keyed,
    )
    if live or config.in_flight:
        recorder.bound(config.in_flight or usual_in_flight(config, k))
    nodes = recorder.nodes
    plan = GraphPlan(tuple(nodes), tuple(recorder.links), _bypasses(config.source, nodes) if live else ())
    # Asked in every process of this host alike: the ends of a link must be of one kind.
    on_card = config.device.startswith("cuda") and _card_memory_travels(config.device)
    at = Rendezvous(folder, config.listen, config.device if on_card else "cpu")
    return place(plan, config.workers, at, live=live)


def usual_in_flight(config: GraphConfig, calls: int) -> int:
    """Frames of a live source that are on their way at once, if the configuration does not say."""
    return IN_FLIGHT + (calls - 1 if config.stages.predict.stream else 0)


def _bypasses(source: str, nodes: Sequence[NodePlan]) -> tuple[LinkPlan, ...]:
    """The source's pictures, the newest first, to sinks that show them while no styled ones come; its sound to sinks
    that keep or send it, and to a viewer, which may record."""
    sinks = [node for node in nodes if node.role == "sink"]
    raw = [_past(node.name, "raw", "latest", 1) for node in sinks if wants_raw(node.about)]
    hearing = [node.name for node in sinks if node.about == VIEWER or wants_sound(node.about)]
    sound = [_past(name, SOUND, "drop_oldest", _SOUND_WAITS) for name in hearing]
    return (*raw, *(sound if has_sound(source) else ()))


def _past(sink: str, port: str, policy: Policy, mailbox: int) -> LinkPlan:
    return LinkPlan(f"source->{sink}.{port}", "source", sink, port, policy=policy, mailbox=mailbox)


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Keeps each call of a stage as a node, and each of its inputs as a link."""

    config: GraphConfig
    nodes: list[NodePlan] = field(default_factory=list)
    links: list[LinkPlan] = field(default_factory=list)

    def call(self, stage: str, about: str, *, kind: str = "", role: Role = "stage", **inputs: Value | None) -> Value:
        """See `graph_plan.Call`. Stages of other packages are called where they belong."""
        if stage == "download":
            inputs = {port: value and self._added("picture", value) for port, value in inputs.items()}
        given = self._call(stage, about, kind, role, inputs)
        return self._added(_GIVES[stage], given) if stage in _GIVES else given

    def _added(self, place: Place, value: Value) -> Value:
        """A value, changed by each of the added stages of this place in turn, and by the hook of the place."""
        for name, module in added_stages().items() if self.config.stages.added else ():
            if name in self.config.stages.added and place == module.AT:
                value = self._call(name, f"added: {module.__name__}", "", "stage", {"frame": value})
        if self.config.hooks and place in functions_of(self.config.hooks):
            value = self._call(f"hook_{place}", f"{place} of {self.config.hooks}", "hook", "stage", {"frame": value})
        return value

    def _call(self, stage: str, about: str, kind: str, role: Role, inputs: Mapping[str, Value | None]) -> Value:
        feeds = {port: value for port, value in inputs.items() if value is not None}
        self.nodes.append(NodePlan(stage, kind or stage, role, tuple(feeds), "main", about))
        for port, value in feeds.items():
            label = f"{value.stage}->{stage}.{port}"
            self.links.append(LinkPlan(label, value.stage, stage, port, mailbox=1 + value.ahead, delay=value.delay))
        return Value(stage)

    def bound(self, frames: int) -> None:
        """Let the source send a frame only when fewer than so many are between it and `download`.

        What waits in links is delay that a live source cannot make good: with two frames a link, a slow network shows
        what happened ten frames ago. So room is a frame of a feedback link that starts with `frames` of them.
        """
        self.nodes[0] = replace(self.nodes[0], inputs=("room",))
        link = LinkPlan("download->source.room", "download", "source", "room", credits=frames, delay=frames, bare=True)
        self.links.append(link)


def _card_memory_travels(device: str) -> bool:
    from warpfuse.graph.links import cuda_ipc  # with torch, which only a run on a card needs here

    return cuda_ipc.missing(device) is None
