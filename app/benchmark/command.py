"""`warpfuse bench`: the speed of a bundle on this machine, and what it can do at a given frame rate."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from warpfuse.engine.errors import BadInput, WarpfuseError
from warpfuse.engine.files import write_whole

SIZES = ("256x256", "384x384", "512x288", "512x512", "640x360", "768x432", "960x544", "1280x720")
"""Default sizes of a sweep."""


def bench(
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle.")] = "embedded",
    size: Annotated[list[str] | None, typer.Option(metavar="WxH", help="Sizes to measure (repeatable).")] = None,
    steps: Annotated[
        list[int] | None, typer.Option(metavar="K", help="Runs of the UNet for each frame (repeatable).")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, or one by name.")] = "auto",
    precision: Annotated[str, typer.Option(help="Precision of the UNet: auto, float or int8.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu or cuda:0")] = "cpu",
    flow: Annotated[str, typer.Option(help="dis, embedded, or a flow bundle.")] = "dis",
    stream: Annotated[bool, typer.Option("--stream", help="The K calls of K frames as one batch.")] = False,
    streams: Annotated[
        list[int] | None, typer.Option(min=1, max=64, metavar="N", help="Number of streams at once (repeatable).")
    ] = None,
    source: Annotated[str | None, typer.Option(help="The video; by default the clip in the package.")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="Approximate duration of each of the four measurements.")
    ] = 8.0,
    fps: Annotated[float | None, typer.Option(min=1, help="Sweep: find the settings that reach this rate.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Cores to use; all by default.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the figures.")] = None,
) -> None:
    """Measure: networks alone, device to device, host to host, source to sink, each beside its floor."""
    from warpfuse.benchmark.machine import describe
    from warpfuse.graph.plan.config import validate
    from warpfuse.graph.runtime.context import usable_cores
    from warpfuse.shipped_clip import CLIP

    keys: dict[str, Any] = {
        "source": source or str(CLIP), "sinks": ["null:"], "bundle": bundle, "backend": backend,
        "precision": precision, "device": device, "flow": flow, "threads": threads,
        "stages": {"predict": {"stream": stream}},
    }  # fmt: skip
    console = Console(stderr=True, highlight=False)
    console.print("measuring the machine: matrix products and a copy", style="dim")
    machine = describe(device, threads or usable_cores())
    console.print(f"{machine.name}: {machine.rates}", style="dim")
    if fps is not None:
        if streams:
            raise BadInput("a sweep is for one stream: leave --streams out, or --fps")
        _sweep({**keys}, size or list(SIZES), steps or [1, 2, 4], fps, console, as_json)
        return
    if len(size or ()) > 1 or len(steps or ()) > 1:
        raise BadInput("several sizes or steps are for a sweep: add --fps RATE, or give one of each")
    from warpfuse.benchmark.bench import bench as measure
    from warpfuse.benchmark.report import plot as draw
    from warpfuse.benchmark.report import table, to_json

    config = validate({**keys, "size": size[0] if size else None, "steps": steps[0] if steps else 1})
    report = measure(
        config, machine, seconds, lambda line: console.print(line, style="dim", markup=False), streams or ()
    )
    Console().print(table(report))
    if as_json is not None:
        _write(as_json, to_json(report))
    if plot is not None:
        draw(report, plot)


def _sweep(
    keys: dict[str, Any], sizes: list[str], steps: list[int], fps: float, console: Console, as_json: Path | None
) -> None:
    from warpfuse.benchmark.bench import sustained
    from warpfuse.graph.plan.config import validate

    lines = Table("size", *(f"{k} step{'s' * (k > 1)}" for k in steps), box=None)
    found: list[dict[str, Any]] = []
    for size in sizes:
        cells = []
        for k in steps:
            console.print(f"{size}, {k} step(s)", style="dim", markup=False)
            try:
                rate = sustained(validate({**keys, "size": size, "steps": k}), frames=16)
            except WarpfuseError as error:
                console.print(f"{size}, {k} step(s): {error}", style="dim", markup=False)
                cells.append("-")
                continue
            found.append({"size": size, "steps": k, "fps": round(rate, 2), "holds": rate >= fps})
            cells.append(f"[bold green]{rate:.1f}[/]" if rate >= fps else f"{rate:.1f}")
        lines.add_row(size, *cells)
    Console().print(lines)
    holding = [one for one in found if one["holds"]]
    best = max(holding, key=lambda one: _pixels(one["size"]) * one["steps"], default=None)
    words = (
        f"holds {fps:g} fps: up to {best['size']} at {best['steps']} step(s)" if best else f"nothing holds {fps:g} fps"
    )
    Console().print(words)
    if as_json is not None:
        _write(as_json, {"bench": "sweep", "fps": fps, "found": found})


def _pixels(size: str) -> int:
    width, _, height = size.lower().partition("x")
    return int(width) * int(height)


def _write(path: Path, figures: dict[str, Any]) -> None:
    try:
        write_whole(path, (json.dumps(figures, indent=1) + "\n").encode())
    except OSError as error:
        raise BadInput(f"--json {path} cannot be written: {error.strerror or error}") from None
