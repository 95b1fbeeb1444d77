"""The figures as a table, as JSON and as a plot."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from warpfuse.engine.errors import BadInput

if TYPE_CHECKING:
    from warpfuse.benchmark.bench import BenchReport
    from warpfuse.benchmark.figure import Figure


def table(report: BenchReport) -> Table:
    """A table of all figures, with their floors."""
    lines = Table("", "fps", "p50 ms", "p95", "p99", "floor ms", "x floor", "watts", "MiB", box=None)
    for number, figure in enumerate(report.figures):
        if number == len(report.networks):
            lines.add_section()
        lines.add_row(*_row(figure))
    return lines


def _row(figure: Figure) -> list[str]:
    calls = f"{figure.name} x{figure.calls:g}" if figure.calls != 1 else figure.name
    calls += "" if figure.rows is None else f", {figure.rows:.1f} rows"
    memory = figure.host_mib if figure.gpu_mib is None else figure.gpu_mib
    known = [f"{figure.fps:.1f}", *(f"{figure.percentile(p):.2f}" for p in (0.5, 0.95, 0.99))]
    floor = [f"{figure.floor_ms:.2f}", f"{figure.ratio:.2f}" if figure.ratio else "-"]
    return [calls, *known, *floor, *("-" if value is None else f"{value:.0f}" for value in (figure.watts, memory))]


def to_json(report: BenchReport) -> dict[str, Any]:
    """The report in plain types."""
    return {
        "bench": "warpfuse",
        "machine": asdict(report.machine),
        "bundle": report.bundle,
        "backend": report.backend,
        "precision": report.precision,
        "size": list(report.size),
        "steps": report.steps,
        "stream": report.stream,
        "flow": report.flow,
        "figures": {figure.name: figure.to_dict() for figure in report.figures},
    }


def plot(report: BenchReport, path: Path) -> None:
    """Draw the time of each network over its floor, and the frames a second between each pair of ends.

    Raises BadInput: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise BadInput("the plot is drawn by matplotlib: pip install 'warpfuse[cpu,bench]'") from None
    canvas = Canvas(figsize=(10, 4.2), layout="constrained")
    left, right = canvas.subplots(1, 2)
    names = [figure.name for figure in report.networks]
    left.bar(names, [figure.percentile(0.5) for figure in report.networks], color="#4c72b0", label="measured, median")
    left.bar(names, [figure.floor_ms for figure in report.networks], color="#dd8452", width=0.5, label="floor")
    left.set_ylabel("ms a call")
    left.set_ylim(0, 1.3 * max(max(f.percentile(0.5), f.floor_ms) for f in report.networks))  # room for the legend
    left.legend(frameon=False, ncols=2)
    ways = report.figures[len(report.networks) :]
    right.barh([figure.name for figure in ways], [figure.fps for figure in ways], color="#55a868", height=0.6)
    floor = ways[0].floor_ms if ways else 0.0
    if floor:
        right.axvline(1000 / floor, color="#dd8452", linestyle="--", label="floor of the networks")
        right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12))
    right.set_xlabel("frames a second")
    right.invert_yaxis()
    width, height = report.size
    what = f"{report.bundle}, {width}x{height}, {report.steps} step(s), {report.backend}, {report.precision}"
    canvas.suptitle(f"{what}\n{report.machine.name}")
    try:
        canvas.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise BadInput(f"--plot {path} cannot be written: {error}") from None
