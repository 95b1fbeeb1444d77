"""What a planned graph is: stages, the lanes they work in, the links between lanes. Plain data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from warpfuse.graph.links.link_plan import LinkPlan

Role = Literal["source", "stage", "sink"]


class Value(NamedTuple):
    """What a stage gives. delay: frames ago; ahead: frames that the stage may be in front of whoever takes it."""

    stage: str
    delay: int = 0
    ahead: int = 0


class StageCall(Protocol):
    """Calls a stage by its name: `inputs` are values of other stages, by the name of the input; None is no input.

    about  one line for a drawing
    kind   what the stage is built from; its name, unless several are of one kind
    """

    def __call__(
        self, stage: str, about: str, *, kind: str = "", role: Role = "stage", **inputs: Value | None
    ) -> Value:
        """What the stage gives."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A stage to be run.

    kind    what it is built from (several nodes may be of one kind)
    worker  the worker that runs it
    lane    the lane of that worker it is called in, named after the lane's first stage; empty before placement
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
    """Nodes in the order a frame meets them, and what connects them.

    links     between lanes, over ZeroMQ
    bypasses  links past the networks, which belong to no epoch
    calls     inputs that a stage of the same lane gives, by a plain call: nothing is opened for them
    """

    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]
    bypasses: tuple[LinkPlan, ...] = ()
    calls: tuple[LinkPlan, ...] = ()

    @property
    def feeds(self) -> tuple[LinkPlan, ...]:
        """Links and calls: all that feeds a stage."""
        return (*self.links, *self.calls)

    @property
    def lanes(self) -> dict[str, list[NodePlan]]:
        """The stages of each lane, in the order in which they are called."""
        lanes: dict[str, list[NodePlan]] = {}
        for node in self.nodes:
            lanes.setdefault(node.lane, []).append(node)
        return lanes

    def feeds_of(self, node: NodePlan) -> list[LinkPlan]:
        """What feeds a node, in the order of its inputs."""
        return [feed for port in node.inputs for feed in self.feeds if (feed.receiver, feed.port) == (node.name, port)]

    def links_from(self, node: NodePlan) -> list[LinkPlan]:
        """The links a node feeds."""
        return [link for link in self.links if link.sender == node.name]


def loop_of(feeds: Iterable[LinkPlan]) -> frozenset[str]:
    """The stages that take turns: all on the way from a picture to the next one, where an input is one frame late.

    Each of them waits for the one before it, so none of them ever works at the same time as another. An input that is
    later than that leaves room for several frames on the way, and they overlap.
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
