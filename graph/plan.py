"""The dataflow graph as a plan: which stages, which links, how many slots. Nothing is opened, so it can be drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from warpfuse.graph import cuda_ipc
from warpfuse.graph.config import GraphConfig
from warpfuse.graph.link import LinkPlan
from warpfuse.graph.placement import Rendezvous, place
from warpfuse.stages.sinks import wants_raw

IN_FLIGHT = 2
"""Frames of a live source on their way at once: while one is in the networks, the next is uploaded and encoded."""

Role = Literal["source", "stage", "sink"]
Feeds = Mapping[str, "str | _Feed"]


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A stage to be run. kind: what it is built from (several nodes may be of one kind); worker: where it runs."""

    name: str
    kind: str
    role: Role
    inputs: tuple[str, ...]
    worker: str
    about: str


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """Nodes in the order a frame meets them, the links between them, and those that pass by the networks."""

    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]
    bypasses: tuple[LinkPlan, ...] = ()

    def links_into(self, node: NodePlan) -> list[LinkPlan]:
        """The links that feed a node, in the order of its inputs."""
        return [link for port in node.inputs for link in self.links if (link.receiver, link.port) == (node.name, port)]

    def links_from(self, node: NodePlan) -> list[LinkPlan]:
        """The links a node feeds."""
        return [link for link in self.links if link.sender == node.name]


@dataclass(frozen=True, slots=True)
class _Feed:
    """Where an input comes from. delay: frames back; ahead: frames the sender may be in front of the reader."""

    sender: str
    delay: int = 0
    ahead: int = 0


def plan_graph(
    config: GraphConfig,
    *,
    temporal: bool | None = None,
    calls: int | None = None,
    printed: bool = False,
    live: bool = False,
    folder: str = "",
) -> GraphPlan:
    """The graph of a configuration.

        source -> upload -> encode ------------------> predict -> fuse -> decode -> download -> sinks
                      \\--> flow --> warp -> encode_past --^--------^        |
                                     ^------- last picture, delay 1 --------+

    With `stages.fuse.reference` latent, what comes back is the x0 that `fuse` gave, and nothing is encoded again; with
    output, the last picture is blended over the decoded one by a stage `blend` in the place of `fuse`.

    As a stream batch of K calls (`stages.predict.stream`), `predict` is K - 1 frames behind. The entry needs a branch
    of its own, from the picture K frames back along the flow composed over them, and is left out with its share at 0;
    so is the branch of the exit.

        flow -> compose_motion -> warp_entry -> encode_entry -> predict;    warp_entry takes the last picture, delay K

    A bundle that draws lines has a stage `composite` behind the decoder, whose picture is shown and whose paint and
    cover come back in the place of the last picture.

    temporal  build the branches of the past; none: only if the weight of the fusion is above 0 or frames may be held.
              Without them every frame is styled on its own, and nothing waits for the picture before.
    calls     network calls of a frame, K; none: as many as steps
    printed   the bundle draws lines and prints in inks (`BundleFile.printed`)
    live      frames of the source cannot wait: few are on their way at once, and the newest is taken next
    folder    of the sockets between workers; needed to open the graph, not to draw it
    """
    fusion, k = config.stages.fuse, calls or config.steps
    stream = config.stages.predict.stream and k > 1
    if temporal is None:
        temporal = fusion.weight > 0 or config.pace.active
    draft = _Draft([], [])
    draft.add("source", config.source, {}, role="source")
    draft.add("upload", "uint8 to float, onto the device", {"raw": "source"})
    draft.add("encode", "picture to latent", {"frame": "upload"})
    if temporal:
        draft.add("flow", f"optical flow and trust ({config.flow})", {"frame": "upload"})
    build = _alone if not temporal else _stream if stream else _sequence
    shown = build(draft, config, k, printed)
    draft.add("download", "float to uint8, onto the host", {"frame": shown})
    if live or config.in_flight:
        draft.bound(config.in_flight or usual_in_flight(config, k))
    for number, sink in enumerate(config.sinks, start=1):
        draft.add(f"sink_{number}", sink, {"frame": "download"}, kind="sink", role="sink")
    plan = GraphPlan(tuple(draft.nodes), tuple(draft.links), _bypasses(draft.nodes) if live else ())
    # Asked in every process of this host alike: the ends of a link must be of one kind.
    on_card = config.device.startswith("cuda") and cuda_ipc.missing(config.device) is None
    at = Rendezvous(folder, config.listen, config.device if on_card else "cpu")
    return place(plan, config.workers, at, live=live)


def usual_in_flight(config: GraphConfig, calls: int) -> int:
    """Frames of a live source that are on their way at once, if the configuration does not say."""
    return IN_FLIGHT + (calls - 1 if config.stages.predict.stream else 0)


def _bypasses(nodes: Sequence[NodePlan]) -> tuple[LinkPlan, ...]:
    """The source's pictures, the newest first, to sinks that show them while no styled ones come."""
    return tuple(
        LinkPlan(f"source->{node.name}.raw", "source", node.name, "raw", policy="latest")
        for node in nodes
        if node.role == "sink" and wants_raw(node.about)
    )


@dataclass(frozen=True, slots=True)
class _Draft:
    nodes: list[NodePlan]
    links: list[LinkPlan]

    def add(self, name: str, about: str, feeds: Feeds, kind: str = "", role: Role = "stage") -> None:
        """Add a node and its links; feeds: input -> the stage it comes from."""
        self.nodes.append(NodePlan(name, kind or name, role, tuple(feeds), "main", about))
        for port, origin in feeds.items():
            feed = _Feed(origin) if isinstance(origin, str) else origin
            label = f"{feed.sender}->{name}.{port}"
            self.links.append(LinkPlan(label, feed.sender, name, port, mailbox=1 + feed.ahead, delay=feed.delay))

    def bound(self, frames: int) -> None:
        """Let the source send a frame only when fewer than so many are between it and `download`.

        What waits in links is delay that a live source cannot make good: with two frames a link, a slow network shows
        what happened ten frames ago. So room is a frame of a feedback link that starts with `frames` of them.
        """
        self.nodes[0] = replace(self.nodes[0], inputs=("room",))
        link = LinkPlan("download->source.room", "download", "source", "room", credits=frames, delay=frames, bare=True)
        self.links.append(link)


def _sampling(config: GraphConfig, calls: int) -> str:
    stream = config.stages.predict.stream and calls > 1
    return f"sampling, {calls} rows of as many frames" if stream else f"sampling, {config.steps} step(s)"


def _alone(draft: _Draft, config: GraphConfig, calls: int, printed: bool) -> str:
    """Every frame on its own."""
    draft.add("predict", _sampling(config, calls), {"source": "encode"})
    draft.add("decode", "latent to picture", {"latent": "predict"})
    return _finish(draft, printed, "decode", "predict")


def _finish(draft: _Draft, printed: bool, paint: str, latent: str, past: str = "", ahead: int = 0) -> str:
    """What is shown: the picture of stage `paint`; of a bundle that is printed, with inks and lines.

    latent  the stage whose latent was decoded; past: that with the cover of the frame before; ahead: frames that the
            source's picture waits for its latent
    """
    if not printed:
        return paint
    feeds: dict[str, str | _Feed] = {"paint": paint, "latent": latent, "source": _Feed("upload", ahead=ahead)}
    draft.add("composite", "inks and lines", {**feeds, "past": past} if past else feeds)
    return "composite"


def _sequence(draft: _Draft, config: GraphConfig, calls: int, printed: bool) -> str:
    """One frame after the other: one warp of the last picture serves entry and exit. Returns what is shown."""
    fusion, about = config.stages.fuse, _sampling(config, calls)
    motion: Feeds = {"motion": "flow"} if fusion.between in ("latent", "picture") else {}
    held: Feeds = {"past": "warp"} if config.pace.active else {}
    fusing = f"fusion, weight {fusion.weight:g}"
    match fusion.reference:
        case "picture":
            past = _Feed("composite" if printed else "decode", delay=1)
            draft.add("warp", "last picture onto this frame", {"motion": "flow", "styled": past})
            draft.add("encode_past", "warped picture to latent", {"frame": "warp"}, kind="encode")
            draft.add("predict", about, {"source": "encode", "reference": "encode_past", **motion})
            draft.add("fuse", fusing, {"prediction": "predict", "reference": "encode_past"})
            draft.add("decode", "latent to picture", {"latent": "fuse", **held})
            return _finish(draft, printed, "decode", "fuse", "warp")
        case "latent":
            draft.add("warp", "last x0 onto this frame", {"motion": "flow", "styled": _Feed("fuse", delay=1)})
            draft.add("predict", about, {"source": "encode", "reference": "warp", **motion})
            draft.add("fuse", fusing, {"prediction": "predict", "reference": "warp"})
            draft.add("decode", "latent to picture", {"latent": "fuse"})
            return _finish(draft, printed, "decode", "fuse")
        case "output":
            past = _Feed("composite" if printed else "blend", delay=1)
            draft.add("warp", "last picture onto this frame", {"motion": "flow", "styled": past})
            entry: Feeds = {}
            if fusion.entry:
                draft.add("encode_past", "warped picture to latent", {"frame": "warp"}, kind="encode")
                entry = {"reference": "encode_past"}
            draft.add("predict", about, {"source": "encode", **entry, **motion})
            draft.add("decode", "latent to picture", {"latent": "predict"})
            draft.add("blend", fusing, {"picture": "decode", "past": "warp"})
            return _finish(draft, printed, "blend", "predict", "warp")


def _stream(draft: _Draft, config: GraphConfig, calls: int, printed: bool) -> str:
    """A stream batch: entry and exit belong to frames K - 1 apart, each has its own warp. Returns what is shown."""
    fusion = config.stages.fuse
    latent, output = fusion.reference == "latent", fusion.reference == "output"
    last_latent = "fuse" if fusion.exit and not output else "predict"
    last_picture = "blend" if fusion.exit and output else "decode"
    last, what = (last_latent, "x0") if latent else ("composite" if printed else last_picture, "picture")
    rows: dict[str, str | _Feed] = {"source": "encode"}
    if fusion.entry:
        draft.add("compose_motion", f"flow over {calls} frames", {"motion": "flow"})
        feeds: Feeds = {"motion": "compose_motion", "styled": _Feed(last, delay=calls)}
        draft.add("warp_entry", f"last {what} onto the frame that enters", feeds, kind="warp")
        rows["reference"] = "warp_entry"
        if not latent:
            draft.add("encode_entry", "warped picture to latent", {"frame": "warp_entry"}, kind="encode")
            rows["reference"] = "encode_entry"
    if fusion.between in ("latent", "picture"):
        rows["motion"] = "flow"
    draft.add("predict", _sampling(config, calls), rows)
    reference = "warp"
    if fusion.exit:
        # the flow of the frames in the batch waits in this link for their pictures
        exits: Feeds = {"motion": _Feed("flow", ahead=calls - 1), "styled": _Feed(last, delay=1)}
        draft.add("warp", f"last {what} onto the frame that leaves", exits)
        if not latent and not output:
            draft.add("encode_past", "warped picture to latent", {"frame": "warp"}, kind="encode")
            reference = "encode_past"
    fusing = f"fusion, weight {fusion.weight:g}"
    if last_latent == "fuse":
        draft.add("fuse", fusing, {"prediction": "predict", "reference": reference})
    draft.add("decode", "latent to picture", {"latent": last_latent})
    if last_picture == "blend":
        draft.add("blend", fusing, {"picture": "decode", "past": reference})
    past = "warp" if fusion.exit and not latent else ""
    return _finish(draft, printed, last_picture, last_latent, past, ahead=calls - 1)
