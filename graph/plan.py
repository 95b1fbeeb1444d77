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

    temporal  build the lower branch; none: only if the weight of the fusion is above 0. Without it every frame is
              styled on its own, and nothing waits for the picture before.
    """
    if temporal is None:
        temporal = config.stages.fuse.weight > 0
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
    if temporal:
        node("flow", f"optical flow and trust ({config.flow})", frame="upload")
        node("warp", "last picture onto this frame", motion="flow", styled="~decode")
        node("encode_past", "warped picture to latent", kind="encode", frame="warp")
        node("predict", f"sampling, {config.steps} step(s)", source="encode", reference="encode_past")
        node("fuse", f"fusion, weight {config.stages.fuse.weight:g}", prediction="predict", reference="encode_past")
        node("decode", "latent to picture", latent="fuse")
    else:
        node("predict", f"sampling, {config.steps} step(s)", source="encode")
        node("decode", "latent to picture", latent="predict")
    node("download", "float to uint8, onto the host", frame="decode")
    for number, sink in enumerate(config.sinks, start=1):
        node(f"sink_{number}", sink, kind="sink", role="sink", frame="download")
    return GraphPlan(tuple(nodes), tuple(links))
