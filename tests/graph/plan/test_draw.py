"""A drawing shows every stage and link of its plan, nothing covers anything else, and text is text, not markup."""

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from rich.console import Console

from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.plan import draw
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.graph_plan import GraphPlan, NodePlan
from warpfuse.graph.plan.layout import Layout, Rect, arrange, worker_frames
from warpfuse.graph.plan.planner import plan_graph

SVG = "{http://www.w3.org/2000/svg}"


def plan(**raw):
    return plan_graph(validate({"source": "in.mp4", "sinks": ["out.mp4", "null:"], **raw}))


def placed(graph, worker_of):
    return replace(graph, nodes=tuple(replace(node, worker=worker_of(node)) for node in graph.nodes))


def tangle():
    """Many inputs, long links, two feedback links, one of them from a stage that has others beneath it."""
    names = ["a", "b", "c", "d", "e", "f", "g"]
    edges = ["a b", "a c", "a d", "a e", "b f", "c f", "d f", "e f", "a f", "f g", "a g", "~f b", "~g a"]
    links, inputs = [], dict.fromkeys(names, ())
    for number, edge in enumerate(edges):
        sender, receiver = edge.removeprefix("~").split()
        port = f"in{number}"
        inputs[receiver] += (port,)
        delay = 2 if edge.startswith("~") else 0
        links.append(LinkPlan(f"{sender}->{receiver}.{port}", sender, receiver, port, credits=2, delay=delay))
    nodes = [NodePlan(n, n, "stage", inputs[n], f"worker {'xyz'[i % 3]}", "about " * 9, n) for i, n in enumerate(names)]
    return GraphPlan(tuple(nodes), tuple(links))


PLANS = {
    "default": plan(),
    "unfused": plan(fusion=0),
    "placed": placed(plan(), lambda n: "capture" if n.role == "source" else n.name if n.role == "sink" else "main"),
    "own workers": placed(plan(), lambda n: n.name),
    "no lane": plan(workers="stages"),
    "mixed workers": placed(plan(), lambda n: str(len(n.name) % 2)),
    "tangle": tangle(),
    "bypass": plan_graph(
        validate({"source": "in.mp4", "sinks": ["a.mp4", "virtualcam:,on-fault=passthrough"]}), live=True
    ),
}


@pytest.fixture(params=PLANS)
def graph(request):
    return PLANS[request.param]


def rects(root, kind):
    found = [r for r in root.iter(f"{SVG}rect") if kind in r.get("class", "").split()]
    return [Rect(*(float(r.get(key)) for key in ("x", "y", "width", "height"))) for r in found]


def text_rect(text):
    """A generous box around a text: 0.6 em a letter."""
    size = 14 if text.get("class") == "name" else 11
    wide = 0.6 * size * len(text.text)
    x, y = float(text.get("x")), float(text.get("y"))
    left = {"slots": x - wide, "delay": x - wide / 2, "name": x - wide / 2, "about": x - wide / 2}
    return Rect(left.get(text.get("class"), x), y - 0.75 * size, wide, size)


def texts(root, *kinds):
    return [text for text in root.iter(f"{SVG}text") if text.get("class") in kinds]


def overlapping(shapes):
    return [(a, b) for a, b in combinations(shapes, 2) if a.meets(b)]


def test_no_box_or_label_covers_another(graph):
    root = ET.fromstring(draw.svg(graph))
    labels = [text_rect(text) for text in texts(root, "slots", "delay", "worker", "legend")]
    assert len(rects(root, "box")) == len(graph.nodes)
    assert overlapping(rects(root, "box") + labels) == []
    assert overlapping([text_rect(text) for text in texts(root, "name", "about")]) == []


def test_the_overlap_check_sees_an_overlap():
    layout = arrange(PLANS["default"])
    boxes = [*layout.boxes.values()]
    assert overlapping([*boxes, replace(boxes[0], x=boxes[0].x + 5)])


def test_what_is_drawn_lies_in_the_picture(graph):
    root = ET.fromstring(draw.svg(graph))
    left, top, width, height = map(float, root.get("viewBox").split())
    shapes = rects(root, "box") + rects(root, "frame") + [text_rect(t) for t in texts(root, "slots", "delay", "legend")]
    for r in shapes:
        assert left <= r.x and top <= r.y and r.x + r.w <= left + width and r.y + r.h <= top + height


def test_no_arrow_without_delay_crosses_a_box(graph):
    layout = arrange(graph)
    assert crossed(layout) == []


def test_the_crossing_check_sees_a_straight_line_through_the_boxes():
    layout = arrange(PLANS["default"])
    start, *_, end = layout.paths["encode->predict.source"]
    low = layout.boxes["warp"].y + 20
    assert crossed(Layout(layout.boxes, {"x": [(start[0], low), (end[0], low)]}, layout.lowest, layout.ports))


def crossed(layout):
    """Level stretches of arrows inside a box; the turns lie between layers, where there is none."""
    hit = []
    for name, points in layout.paths.items():
        for (x, _), (next_x, y) in pairwise(points):
            stretch = Rect(x + 40, y, next_x - x - 41, 0.5)
            hit += [(name, box) for box, rect in layout.boxes.items() if rect.meets(stretch)]
    return hit


def test_links_without_delay_point_right(graph):
    boxes = arrange(graph).boxes
    for feed in graph.feeds:
        if not feed.delay:
            assert boxes[feed.sender].x + boxes[feed.sender].w < boxes[feed.receiver].x


def test_every_link_and_call_is_drawn_once_and_only_feedback_is_dashed(graph):
    root = ET.fromstring(draw.svg(graph))
    drawn = {}
    for path in root.iter(f"{SVG}path"):
        title = path.find(f"{SVG}title")
        if title is not None:
            drawn[title.text.partition(": ")[0]] = path.get("class")
    kinds = {link.name: "link feedback" if link.delay else "link" for link in graph.links}
    kinds |= {call.name: "link feedback" if call.delay else "link call" for call in graph.calls}
    assert drawn == kinds | {link.name: "link bypass" for link in graph.bypasses}
    owns = {link.name: f"slots {link.slots}" for link in graph.links}
    feedback = [f"{owns.get(feed.name, 'call')} · delay {feed.delay}" for feed in graph.feeds if feed.delay]
    assert [t.text for t in texts(root, "delay")] == feedback
    assert sorted(t.text for t in texts(root, "slots")) == sorted(
        f"slots {n.slots}" for n in (*graph.links, *graph.bypasses) if not n.delay
    )
    dashed = re.findall(r"\.(\S+)\{[^}]*dasharray", root.find(f"{SVG}style").text)
    assert dashed == ["feedback"]


def test_the_stages_of_a_lane_are_told_apart_in_both_drawings(graph):
    root = ET.fromstring(draw.svg(graph))
    shared = [node.name for node in graph.nodes if len(graph.lanes[node.lane]) > 1]
    assert len(rects(root, "lane")) == len(shared)
    named = [line.split("  ")[0] for line in shown(graph).splitlines() if "  lane " in line]
    assert named == shared


def test_a_frame_holds_the_boxes_of_one_worker_alone(graph):
    layout = arrange(graph)
    framed = set()
    for worker, frame in worker_frames(graph, layout):
        for node in graph.nodes:
            if layout.boxes[node.name].meets(frame):
                assert node.worker == worker
                framed.add(node.name)
    assert framed == {node.name for node in graph.nodes}
    assert overlapping([frame for _, frame in worker_frames(graph, layout)]) == []


def test_text_is_escaped_in_both_drawings():
    nasty = "</text><script>x</script>&\x1b[31m\x00"
    graph = plan(source=nasty)
    graph = replace(graph, nodes=(replace(graph.nodes[0], worker=nasty), *graph.nodes[1:]))
    document = draw.svg(graph)
    root = ET.fromstring(document)
    assert list(root.iter(f"{SVG}script")) == [] and "\x1b" not in document and "\x00" not in document
    assert any("</text><script>" in (title.text or "") for title in root.iter(f"{SVG}title")), "shown, as text"
    assert "[bold]x" in shown(plan(source="[bold]x\x1b[2J")) and "\x1b" not in shown(plan(source="\x1b[2J"))


def test_the_same_plan_is_drawn_the_same_and_needs_nothing_from_outside(graph):
    assert draw.svg(graph) == draw.svg(graph)
    outside = re.findall(r"https?://[^\"' )]+|@import|url\((?!#)", draw.svg(graph))
    assert outside == ["http://www.w3.org/2000/svg"]
    assert "prefers-color-scheme:dark" in draw.svg(graph)


def test_an_empty_plan_can_be_drawn():
    ET.fromstring(draw.svg(GraphPlan((), ())))
    assert shown(GraphPlan((), ())).strip() == ""


def test_the_terminal_shows_stages_in_order_and_every_link(graph):
    lines = shown(graph).splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert [line.split("  ")[0] for line in heads] == [node.name for node in graph.nodes]
    for line, node in zip(heads, graph.nodes, strict=True):
        assert f"[{node.worker}]" in line
    rows = [line for line in lines if line.startswith(" ")]
    past = graph.bypasses
    expected = [x for n in graph.nodes for x in (*graph.feeds_of(n), *(b for b in past if b.receiver == n.name))]
    for row, link in zip(rows, expected, strict=True):
        if link in graph.calls:
            assert f"{link.sender} as {link.port}: call in the lane" in row
        else:
            assert f"{link.sender} as {link.port}: slots {link.slots}, {link.credits} credit" in row
            assert f"mailbox {link.mailbox} {link.policy}" in row
        assert ("↺" in row and f"delay {link.delay} (feedback)" in row) == bool(link.delay)
        assert ("⇠" in row and "past the networks" in row) == (link in past)


def shown(graph):
    console = Console(width=200, file=io.StringIO())
    console.print(draw.terminal(graph))
    return console.file.getvalue()
