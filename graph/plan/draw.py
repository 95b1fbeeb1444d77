"""Drawing a plan: `terminal` for a console, `svg` as a self-contained picture."""

import re
import textwrap
from collections.abc import Iterator
from html import escape
from itertools import pairwise

from rich.console import Group
from rich.text import Text

from warpfuse.engine.redact import redact
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.plan.graph_plan import GraphPlan, NodePlan
from warpfuse.graph.plan.layout import BEND, BOX_W, LABEL_END, Layout, Point, Rect, arrange, return_y, worker_frames

_EDGE = 24  # blank margin of the picture, px
_LEGEND = 34
_CORNER = 10
_NOT_XML = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_STYLE = """
svg{--page:#fff;--ink:#1f2430;--soft:#667085;--line:#7c879b;--box:#fff;--rim:#b9c2d0;--frame:#f4f6fa;--frame-rim:#d5dbe6;
--end:#0f766e;--end-box:#effaf7;--back:#c2410c;--call:#4f46e5}
@media (prefers-color-scheme:dark){svg{--page:#0f131a;--ink:#e8ecf4;--soft:#98a3b6;--line:#7f8ba1;--box:#1c2330;
--rim:#435066;--frame:#151b25;--frame-rim:#2b3546;--end:#5eead4;--end-box:#12302e;--back:#fb923c;--call:#a5b4fc}}
text{font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--soft);
font-size:11px}
.page{fill:var(--page)}.frame{fill:var(--frame);stroke:var(--frame-rim)}
.box{fill:var(--box);stroke:var(--rim);stroke-width:1.25}.source,.sink{fill:var(--end-box);stroke:var(--end)}
.name{fill:var(--ink);font-size:14px;font-weight:600;text-anchor:middle}.about{text-anchor:middle}
.link{fill:none;stroke:var(--line);stroke-width:1.6}.head{fill:var(--line)}
.bypass{stroke:var(--end)}.call{stroke:var(--call);stroke-width:2.4}.lane{stroke:var(--call)}.head-call{fill:var(--call)}
.feedback{stroke:var(--back);stroke-width:2;stroke-dasharray:7 5}
.head-back{fill:var(--back)}
.slots{text-anchor:end}.delay{fill:var(--back);text-anchor:middle;font-weight:600}
"""


def terminal(plan: GraphPlan) -> Group:
    """A rich renderable: the stages in order with worker and lane, and under each the links and calls that feed it."""
    return Group(*(line for node in plan.nodes for line in _lines(plan, node)))


def svg(plan: GraphPlan) -> str:
    """A self-contained SVG document, the same for the same plan.

    Stages stand in layers from left to right, framed by worker. A thin solid arrow is a link with its slots; a thick
    one, in another colour, is a call inside a lane; a dashed one below them is feedback, with its delay. Colours follow
    the light or dark scheme of the viewer.
    """
    layout = arrange(plan)
    feedback = [link for link in plan.feeds if link.delay]
    frames = worker_frames(plan, layout)
    lines = [Rect(x, y, 0, 0) for points in layout.paths.values() for x, y in points]
    shapes = [*(lines or [Rect(0, 0, 0, 0)]), *layout.boxes.values(), *(rect for _, rect in frames)]
    left, top = min(r.x for r in shapes) - _EDGE, min(r.y for r in shapes) - _EDGE
    right = (
        max([r.x + r.w for r in shapes] + [left + (620 if feedback else 220) + (150 if plan.calls else 0)]) + _EDGE
    )  # the minimum is the width of the legend
    floor = max([r.y + r.h for r in shapes] + [return_y(layout, i) + 12 for i in range(len(feedback))])
    width, height = right - left, floor + _EDGE + _LEGEND - top
    names = ", ".join(node.name for node in plan.nodes)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:g} {top:g} {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img"><title>Dataflow graph: {_safe(names)}</title><style>{_STYLE}</style>',
        f"<defs>{_head('head')}{_head('head-back')}{_head('head-call')}</defs>",
        f'<rect class="page" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}"/>',
    ]
    for worker, rect in frames:
        body.append(_rect(rect, "frame", 14))
        fitting = int((rect.w - 24) / 6.6)
        body.append(_text(rect.x + 12, rect.y + 17, "worker", _cut(f"worker {worker}", fitting)))
    for link in plan.feeds:
        if not link.delay:
            body += _forward(link, layout, "call" if link in plan.calls else "link")
    for link in plan.bypasses:
        body += _forward(link, layout, "link bypass")
    for number, link in enumerate(feedback):
        body += _feedback(link, layout, number, called=link in plan.calls)
    shared = {name for name, nodes in plan.lanes.items() if len(nodes) > 1}
    for node in plan.nodes:
        body += _box(node, layout.boxes[node.name], shared=node.lane in shared)
    body += _legend(left + _EDGE, floor + _LEGEND, bool(feedback), bool(plan.calls))
    return "\n".join([*body, "</svg>\n"])


def _lines(plan: GraphPlan, node: NodePlan) -> Iterator[Text]:
    head = Text()
    head.append(_clean(node.name), "bold")
    head.append(f"  [{_clean(node.worker)}]", "cyan")
    head.append(f"  lane {_clean(node.lane)}" if len(plan.lanes[node.lane]) > 1 else "", "magenta")
    head.append(f"  {_clean(node.about)}" if node.about else "", "dim")
    yield head
    for feed in plan.feeds_of(node):
        mark, style = ("↺", "yellow") if feed.delay else ("←", "")
        figures = _figures(feed, called=feed in plan.calls)
        yield Text(f"    {mark} {_clean(feed.sender)} as {_clean(feed.port)}: {figures}", style)
    for link in plan.bypasses:
        if link.receiver == node.name:
            figures = f"{_figures(link)}, past the networks"
            yield Text(f"    ⇠ {_clean(link.sender)} as {_clean(link.port)}: {figures}", "green")


def _figures(link: LinkPlan, *, called: bool = False) -> str:
    """Slots, credits, mailbox and delay of a link, as text. A call (`called`) has a delay at most."""
    if called:
        return f"call in the lane, delay {link.delay} (feedback)" if link.delay else "call in the lane"
    credit = "credit" if link.credits == 1 else "credits"
    words = f"slots {link.slots}, {link.credits} {credit}, mailbox {link.mailbox} {link.policy}"
    return f"{words}, delay {link.delay} (feedback)" if link.delay else words


def _forward(link: LinkPlan, layout: Layout, kind: str = "link") -> list[str]:
    points = layout.paths[link.name]
    steps = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for (x, y), (next_x, next_y) in pairwise(points):
        if y == next_y:
            steps.append(f"H{next_x:g}")
        else:  # the bend is right behind a layer, where there are no labels
            half, turned = x + BEND / 2, x + BEND
            steps.append(f"C{half:g} {y:g} {half:g} {next_y:g} {turned:g} {next_y:g}H{next_x:g}")
    if kind == "call":
        return [_path("".join(steps), link, "link call", "head-call", called=True)]
    x, y = points[-1]
    label = _text(x - LABEL_END, y - 5, "slots", f"slots {link.slots}")
    return [_path("".join(steps), link, kind, "head"), label]


def _feedback(link: LinkPlan, layout: Layout, number: int, *, called: bool) -> list[str]:
    """Arrow of feedback `number`: down from the sender, back below all boxes, up to the receiver."""
    y = return_y(layout, number)
    (x0, y0), down = layout.leaving(link, number)
    (x1, y1), up = layout.entering(link, number)
    points = [(x0, y0), (down, y0), (down, y), (up, y), (up, y1), (x1, y1)]
    text = f"{'call' if called else f'slots {link.slots}'} · delay {link.delay}"
    middle = (down + up) / 2
    chip = Rect(middle - 3.5 * len(text), y - 9, 7 * len(text), 18)
    label = _text(middle, y + 4, "delay", text)
    path = _path(_rounded(points), link, "link feedback", "head-back", called=called)
    return [path, _rect(chip, "chip frame", 9), label]


def _rounded(points: list[Point]) -> str:
    """SVG path along axis-parallel segments with rounded corners. Repeated points are skipped."""
    points = [p for i, p in enumerate(points) if i == 0 or p != points[i - 1]]
    steps = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, (x, y), after in zip(points, points[1:], points[2:], strict=False):
        (ax, ay), (bx, by) = _towards((x, y), before), _towards((x, y), after)
        steps.append(f"L{ax:g} {ay:g}Q{x:g} {y:g} {bx:g} {by:g}")
    return "".join([*steps, f"L{points[-1][0]:g} {points[-1][1]:g}"])


def _towards(corner: Point, other: Point) -> Point:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    share = min(0.5, _CORNER / max(abs(dx), abs(dy)))
    return corner[0] + dx * share, corner[1] + dy * share


def _box(node: NodePlan, box: Rect, *, shared: bool) -> list[str]:
    about = textwrap.wrap(_clean(node.about), fitting := int((BOX_W - 12) / 6))
    about = [about[0], _cut("".join(about[1:]), fitting)] if len(about) > 2 else about
    middle, y = box.x + box.w / 2, box.y + box.h / 2 + 5 - 7.5 * len(about)
    lines = [_text(middle, y, "name", _cut(_clean(node.name), int((BOX_W - 12) / 8.4)))]
    lines += [_text(middle, y + 3 + 14 * i, "about", line) for i, line in enumerate(about, start=1)]
    title = f"<title>{_safe(f'{node.name} ({node.worker}): {node.about}')}</title>"
    return [f"<g>{title}{_rect(box, f'box {node.role} lane' if shared else f'box {node.role}', 9)}", *lines, "</g>"]


def _legend(x: float, y: float, feedback: bool, calls: bool) -> list[str]:
    kinds = [("link", "head", "link: slots it owns")]
    if calls:
        kinds.append(("link call", "head-call", "call in a lane"))
    if feedback:
        kinds.append(("link feedback", "head-back", "feedback: the reader starts with delay empty frames"))
    parts = []
    for kind, head, words in kinds:
        parts.append(f'<path class="{kind}" marker-end="url(#{head})" d="M{x:g} {y - 4:g}h34"/>')
        parts.append(_text(x + 46, y, "legend", words))
        x += 70 + 6.4 * len(words)
    return parts


def _path(d: str, link: LinkPlan, kind: str, head: str, *, called: bool = False) -> str:
    title = _safe(f"{link.name}: {_figures(link, called=called)}")
    return f'<path class="{kind}" marker-end="url(#{head})" d="{d}"><title>{title}</title></path>'


def _head(name: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path class="{name}" d="M0 0.8 10 5 0 9.2z"/></marker>'
    )


def _rect(r: Rect, kind: str, radius: float) -> str:
    return f'<rect class="{kind}" x="{r.x:g}" y="{r.y:g}" width="{r.w:g}" height="{r.h:g}" rx="{radius:g}"/>'


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{_safe(text)}</text>'


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(1, length - 1)] + "…"


def _safe(text: str) -> str:
    return escape(_clean(text))


def _clean(text: str) -> str:
    """`text` without characters that XML forbids or that control a terminal, and without passwords in addresses."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", redact(text))
