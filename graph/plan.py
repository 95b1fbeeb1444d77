"""The dataflow graph as a plan: which stages, which links, how many slots. Nothing is opened, so it can be drawn."""

from dataclasses import dataclass
from typing import Literal

from warpfuse.graph.config import GraphConfig
from warpfuse.graph.link import LinkPlan

Role = Literal["source", "stage", "sink"]


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
    """Nodes in the order a frame meets them, and the links between them."""

    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]

    def links_into(self, node: NodePlan) -> list[LinkPlan]:
        """The links that feed a node, in the order of its inputs."""
        return [link for port in node.inputs for link in self.links if (link.receiver, link.port) == (node.name, port)]

    def links_from(self, node: NodePlan) -> list[LinkPlan]:
        """The links a node feeds."""
        return [link for link in self.links if link.sender == node.name]


def plan_graph(config: GraphConfig, *, temporal: bool | None = None) -> GraphPlan:
    """The graph of a configuration.

        source -> upload -> encode ------------------> predict -> fuse -> decode -> download -> sinks
                      \\--> flow --> warp -> encode_past --^--------^        |
                                     ^------- last picture, delay 1 --------+

    With `stages.fuse.reference` latent, what comes back is the x0 that `fuse` gave, and nothing is encoded again; with
    output, the last picture is blended over the decoded one by a stage `blend` in the place of `fuse`.

    temporal  build the lower branch; none: only if the weight of the fusion is above 0. Without it every frame is
              styled on its own, and nothing waits for the picture before.
    """
    fusion = config.stages.fuse
    if temporal is None:
        temporal = fusion.weight > 0
    nodes: list[NodePlan] = []
    links: list[LinkPlan] = []

    def node(name: str, about: str, kind: str = "", role: Role = "stage", **feeds: str) -> None:
        """Add a node and its links; feeds: input -> the stage it comes from, "~stage" for a link with a delay of 1."""
        nodes.append(NodePlan(name, kind or name, role, tuple(feeds), "main", about))
        for port, origin in feeds.items():
            sender = origin.removeprefix("~")
            label = f"{sender}->{name}.{port}"
            links.append(LinkPlan(label, sender, name, port, delay=int(origin.startswith("~"))))

    node("source", config.source, role="source")
    node("upload", "uint8 to float, onto the device", raw="source")
    node("encode", "picture to latent", frame="upload")
    sampling, fusing = f"sampling, {config.steps} step(s)", f"fusion, weight {fusion.weight:g}"
    shown = "decode"
    if temporal:
        node("flow", f"optical flow and trust ({config.flow})", frame="upload")
    match fusion.reference if temporal else None:
        case None:
            node("predict", sampling, source="encode")
            node("decode", "latent to picture", latent="predict")
        case "picture":
            node("warp", "last picture onto this frame", motion="flow", styled="~decode")
            node("encode_past", "warped picture to latent", kind="encode", frame="warp")
            node("predict", sampling, source="encode", reference="encode_past")
            node("fuse", fusing, prediction="predict", reference="encode_past")
            node("decode", "latent to picture", latent="fuse")
        case "latent":
            node("warp", "last x0 onto this frame", motion="flow", styled="~fuse")
            node("predict", sampling, source="encode", reference="warp")
            node("fuse", fusing, prediction="predict", reference="warp")
            node("decode", "latent to picture", latent="fuse")
        case "output":
            shown = "blend"
            node("warp", "last picture onto this frame", motion="flow", styled="~blend")
            if fusion.entry:
                node("encode_past", "warped picture to latent", kind="encode", frame="warp")
                node("predict", sampling, source="encode", reference="encode_past")
            else:
                node("predict", sampling, source="encode")
            node("decode", "latent to picture", latent="predict")
            node("blend", fusing, picture="decode", past="warp")
    node("download", "float to uint8, onto the host", frame=shown)
    for number, sink in enumerate(config.sinks, start=1):
        node(f"sink_{number}", sink, kind="sink", role="sink", frame="download")
    return GraphPlan(tuple(nodes), tuple(links))
