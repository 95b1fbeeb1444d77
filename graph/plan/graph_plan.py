"""A planned graph as plain data: stages, their lanes, and the links between lanes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from warpfuse.graph.links.link_plan import LinkPlan

Role = Literal["source", "stage", "sink"]


class Value(NamedTuple):
    """The output of a stage, as the input of another.

    delay  number of frames ago it was made
    ahead  number of frames by which the stage may run in front of the reader
    """

    stage: str
    delay: int = 0
    ahead: int = 0


class StageCall(Protocol):
    """Calls a stage by its name.

    about   one line for the drawing
    kind    the kind of stage to build; by default its name
    inputs  outputs of other stages, by the name of the input; None: not connected
    """

    def __call__(
        self, stage: str, about: str, *, kind: str = "", role: Role = "stage", **inputs: Value | None
    ) -> Value:
        """The output of the stage."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A stage of the graph.

    kind    the kind of stage to build; several nodes may have the same
    inputs  names of its inputs
    worker  name of the worker that runs it
    about   one line for the drawing
    lane    lane of that worker, named after the lane's first stage; empty before placement
    """

    name: str
    kind: str
    role: Role
    inputs: tuple[str, ...]
    worker: str
    about: str
    lane: str = ""


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """The stages of a run and their connections.

    nodes     in the order in which a frame passes them
    links     between lanes, over ZeroMQ
    bypasses  links past the networks, which belong to no epoch
    calls     connections within a lane: plain calls, for which nothing is opened
    """

    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]
    bypasses: tuple[LinkPlan, ...] = ()
    calls: tuple[LinkPlan, ...] = ()

    @property
    def feeds(self) -> tuple[LinkPlan, ...]:
        """Links and calls: all connections that carry inputs of stages."""
        return (*self.links, *self.calls)

    @property
    def lanes(self) -> dict[str, list[NodePlan]]:
        """The stages of each lane, in the order in which they are called."""
        lanes: dict[str, list[NodePlan]] = {}
        for node in self.nodes:
            lanes.setdefault(node.lane, []).append(node)
        return lanes

    def feeds_of(self, node: NodePlan) -> list[LinkPlan]:
        """The links and calls into a node, in the order of its inputs."""
        return [feed for port in node.inputs for feed in self.feeds if (feed.receiver, feed.port) == (node.name, port)]

    def links_from(self, node: NodePlan) -> list[LinkPlan]:
        """The links out of a node."""
        return [link for link in self.links if link.sender == node.name]


def loop_of(feeds: Iterable[LinkPlan]) -> frozenset[str]:
    """Names of the stages in a cycle with a delay of one frame: from a picture to the next picture.

    Each of them waits for the one before it, so two of them never run at the same time. In a cycle with a longer delay
    several frames are under way, and its stages overlap.
    """
    feeds = list(feeds)
    on_time = [(feed.sender, feed.receiver) for feed in feeds if not feed.delay]
    loop: set[str] = set()
    for feed in feeds:
        if feed.delay == 1 and not feed.bare:
            after = _reached(feed.receiver, on_time)
            loop |= after & _reached(feed.sender, [(receiver, sender) for sender, receiver in on_time])
    return frozenset(loop)


def _reached(start: str, steps: list[tuple[str, str]]) -> set[str]:
    reached, new = {start}, {start}
    while new:
        new = {to for origin, to in steps if origin in new} - reached
        reached |= new
    return reached
