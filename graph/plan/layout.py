"""Layout of a drawn plan: layers from left to right, after Sugiyama, Tagawa and Toda (1981).

A link without delay points right, from a layer to a later one. The layer of a stage is its longest path from a source.
A link that passes a layer has a place of its own in it, so no arrow crosses a box. Units are pixels, y points down.

It is computed here, not by Graphviz or Mermaid, so that `warpfuse graph --svg` needs no other program.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.plan.graph_plan import GraphPlan

BOX_W, BOX_H = 124.0, 66.0
GAP = 100.0  # between layers: room for a bend, a label, the margins of two frames and an arrow head
BEND = 34.0
LABEL_END = 20.0
FRAME, FRAME_TOP = 14.0, 26.0
_PORT, _ROW, _RETURN = 22.0, 24.0, 30.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rect:
    """x, y of the upper left corner, width and height."""

    x: float
    y: float
    w: float
    h: float

    def meets(self, other: "Rect") -> bool:
        """The rectangles overlap."""
        across = self.x < other.x + other.w and other.x < self.x + self.w
        return across and self.y < other.y + other.h and other.y < self.y + self.h


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of boxes and arrows.

    boxes   by stage
    paths   by link or call without delay: its corners, from sender to receiver
    lowest  the lowest stage of each layer
    ports   by link: the y at which it enters its receiver from the left
    """

    boxes: dict[str, Rect]
    paths: dict[str, list[Point]]
    lowest: frozenset[str]
    ports: dict[str, float]

    def leaving(self, link: LinkPlan, number: int) -> tuple[Point, float]:
        """Start of feedback link `number`, and the x at which it goes down."""
        box = self.boxes[link.sender]
        if link.sender in self.lowest:
            x = box.x + box.w / 2 + _aside(number)
            return (x, box.y + box.h), x
        return (box.x + box.w, box.y + box.h - 12), box.x + box.w + 16 + _aside(number)

    def entering(self, link: LinkPlan, number: int) -> tuple[Point, float]:
        """End of feedback link `number`, and the x at which it comes up."""
        box = self.boxes[link.receiver]
        if link.receiver in self.lowest:
            x = box.x + box.w / 2 - 16 + _aside(number)
            return (x, box.y + box.h), x
        return (box.x, self.ports[link.name]), box.x - GAP + 18 + _aside(number)


def arrange(plan: GraphPlan) -> Layout:
    """The layout of a plan. Boxes do not overlap, and no arrow without delay crosses a box."""
    depth = _depths(plan)
    drawn = (*plan.feeds, *plan.bypasses)
    chains = {link.name: _chain(link, depth) for link in drawn if not link.delay}
    edges = [edge for chain in chains.values() for edge in pairwise(chain)]
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for node in plan.nodes:
        layers[depth[node.name]].append(node.name)
    for link in drawn:
        for place in chains.get(link.name, [])[1:-1]:
            layers[depth[link.sender] + chains[link.name].index(place)].append(place)
    layers = _untangled(layers, edges)
    lowest = frozenset(layer[-1] for layer in layers if layer)
    entering = {
        node.name: [link for link in plan.feeds_of(node) if not (link.delay and node.name in lowest)]
        + [link for link in plan.bypasses if link.receiver == node.name]
        for node in plan.nodes
    }
    heights = {name: max(BOX_H, _PORT * (len(links) + 1)) for name, links in entering.items()}
    workers = {node.name: node.worker for node in plan.nodes}

    def distance(upper: str, lower: str) -> float:
        apart = (heights.get(upper, 0) + heights.get(lower, 0)) / 2 + _ROW
        framed = workers.get(upper) != workers.get(lower) and upper in workers and lower in workers
        return apart + (FRAME + FRAME_TOP if framed else 0)

    middles = _heights(layers, edges, distance)
    xs = {place: i * (BOX_W + GAP) for i, layer in enumerate(layers) for place in layer}
    boxes = {n: Rect(xs[n], middles[n] - heights[n] / 2, BOX_W, heights[n]) for n in workers}
    ports: dict[str, float] = {}
    for name, links in entering.items():
        # Inputs are in the order in which their arrows arrive: arrows that cross in front of a box are hard to follow.
        links.sort(key=lambda link: middles[chains[link.name][-2]] if link.name in chains else float("inf"))
        for i, link in enumerate(links):
            ports[link.name] = middles[name] + (i - (len(links) - 1) / 2) * _PORT
    paths = {name: _corners(chain, xs, middles, ports[name]) for name, chain in chains.items()}
    return Layout(boxes, paths, lowest, ports)


def return_y(layout: Layout, number: int) -> float:
    """The y at which feedback link `number` goes back, below everything else."""
    lines = [y for points in layout.paths.values() for _, y in points]
    return max([box.y + box.h for box in layout.boxes.values()] + lines) + _RETURN * (number + 1)


def worker_frames(plan: GraphPlan, layout: Layout) -> list[tuple[str, Rect]]:
    """Frames of the workers, by name. A worker has one frame around its boxes, or one around each of its boxes where
    one frame would overlap that of another worker."""
    returns = [(link, return_y(layout, i)) for i, link in enumerate(link for link in plan.feeds if link.delay)]
    where = {node.name: node.worker for node in plan.nodes}
    whole: dict[str, Rect] = {}
    for worker in dict.fromkeys(where.values()):
        own = [layout.boxes[name] for name, at in where.items() if at == worker]
        own += [Rect(own[0].x, y, 0, 0) for link, y in returns if where[link.sender] == where[link.receiver] == worker]
        whole[worker] = _around(own)
    torn = {w for a, b in combinations(whole, 2) if whole[a].meets(whole[b]) for w in (a, b)}
    frames = [(worker, rect) for worker, rect in whole.items() if worker not in torn]
    alone: dict[str, list[Rect]] = {worker: [] for worker in whole if worker in torn}
    for name, box in sorted(layout.boxes.items(), key=lambda item: (item[1].x, item[1].y)):
        if where[name] not in torn:
            continue
        placed = alone[where[name]]
        if placed and _around(placed[-1:]).meets(_around([box])):  # neighbours in a layer share a frame
            box = _around([placed.pop(), box], bare=True)
        placed.append(box)
    return frames + [(worker, _around([box])) for worker, boxes in alone.items() for box in boxes]


def _around(rects: Sequence[Rect], *, bare: bool = False) -> Rect:
    """The rectangle around all of them, with the margin of a frame or (`bare`) without."""
    left, top = min(r.x for r in rects), min(r.y for r in rects)
    right, bottom = max(r.x + r.w for r in rects), max(r.y + r.h for r in rects)
    if bare:
        return Rect(left, top, right - left, bottom - top)
    return Rect(left - FRAME, top - FRAME_TOP, right - left + 2 * FRAME, bottom - top + FRAME_TOP + FRAME)


def _depths(plan: GraphPlan) -> dict[str, int]:
    depth = {node.name: 0 for node in plan.nodes}
    for _ in plan.nodes:
        for link in plan.feeds:
            if not link.delay:
                least = min(depth[link.sender] + 1, len(depth) - 1)
                depth[link.receiver] = max(depth[link.receiver], least)
    return depth


def _chain(link: LinkPlan, depth: dict[str, int]) -> list[str]:
    """Sender, a place in each layer between, receiver."""
    passed = range(depth[link.sender] + 1, depth[link.receiver])
    return [link.sender, *(f"{link.name}@{layer}" for layer in passed), link.receiver]


def _untangled(layers: list[list[str]], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The order with the fewest crossings that the barycentre heuristic finds in eight sweeps, right and left."""
    best, fewest = layers, _crossings(layers, edges)
    layers = [list(layer) for layer in layers]
    for sweep in range(8):
        near = {place: [a if sweep % 2 == 0 else b for a, b in edges if (b if sweep % 2 == 0 else a) == place]
                for layer in layers for place in layer}  # fmt: skip
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            place = {name: float(i) for other in layers for i, name in enumerate(other)}
            layer.sort(key=lambda n: sum(place[m] for m in near[n]) / len(near[n]) if near[n] else place[n])
        crossings = _crossings(layers, edges)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _crossings(layers: Sequence[Sequence[str]], edges: Sequence[tuple[str, str]]) -> int:
    at = {name: (depth, i) for depth, layer in enumerate(layers) for i, name in enumerate(layer)}
    drawn = [(*at[a], at[b][1]) for a, b in edges]
    return sum(p[0] == q[0] and (p[1] - q[1]) * (p[2] - q[2]) < 0 for p, q in combinations(drawn, 2))


def _heights(
    layers: Sequence[Sequence[str]], edges: Sequence[tuple[str, str]], distance: Callable[[str, str], float]
) -> dict[str, float]:
    """The y of every place: near the mean of its neighbours, in the given order, at least `distance` apart."""
    y: dict[str, float] = {}
    for layer in layers:
        y.update(_spaced(layer, dict.fromkeys(layer, 0.0), distance))
    for sweep in range(24):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = {}
            for name in layer:
                near = [a for a, b in edges if b == name] + [b for a, b in edges if a == name]
                wanted[name] = sum(y[n] for n in near) / len(near) if near else y[name]
            y.update(_spaced(layer, wanted, distance))
    for layer in layers:  # finally by senders only: a stage with one input is level with its sender
        senders = {name: [y[a] for a, b in edges if b == name] or [y[name]] for name in layer}
        y.update(_spaced(layer, {name: sum(ys) / len(ys) for name, ys in senders.items()}, distance))
    return {name: float(round(value)) for name, value in y.items()}


def _spaced(layer: Sequence[str], wanted: dict[str, float], distance: Callable[[str, str], float]) -> dict[str, float]:
    """The positions closest to `wanted` (least squares) that keep order and distance, by pool adjacent violators."""
    offsets = [0.0]
    for upper, lower in pairwise(layer):
        offsets.append(offsets[-1] + distance(upper, lower))
    pools: list[tuple[float, int]] = []
    for name, offset in zip(layer, offsets, strict=False):
        mean, count = wanted[name] - offset, 1
        while pools and pools[-1][0] > mean:
            other, n = pools.pop()
            mean, count = (mean * count + other * n) / (count + n), count + n
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return {name: mean + offset for name, mean, offset in zip(layer, flat, offsets, strict=False)}


def _corners(chain: Sequence[str], xs: dict[str, float], ys: dict[str, float], port: float) -> list[Point]:
    """The path from the right side of the sender through its places to the port of the receiver."""
    points = [(xs[chain[0]] + BOX_W, ys[chain[0]])]
    for place in chain[1:-1]:
        points.append((xs[place] + BOX_W, ys[place]))
    return [*points, (xs[chain[-1]], port)]


def _aside(number: int) -> float:
    """Offset in x of feedback link `number`, so that feedback links in one gap are side by side."""
    return 5.0 * (number % 4)
