"""The demonstration: the clip that ships restyled with the bundle that ships, with fusion and without."""

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from warpfuse.commands.measure import measure
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.run import run
from warpfuse.shipped_clip import CLIP
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.motion.consistency import Figures
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.sources import open_source

STEADY, SIDE_BY_SIDE = "demo.mp4", "demo_side_by_side.mp4"

Picture = npt.NDArray[np.uint8]
Advance = Callable[[int, int | None], None]

_SEAM_PX = 4  # between panels; even, since 4:2:0 video requires it


class DemoFigures(TypedDict):
    """Figures of the demonstration.

    runs         `Stats.to_dict` of both runs
    consistency  `measure` of the clip and both results
    """

    runs: dict[str, dict[str, Any]]
    consistency: dict[str, Figures]


def demo(
    folder: str | Path,
    *,
    frames: int | None = None,
    bundle: str = "embedded",
    clip: Path = CLIP,
    console: Console | None = None,
    stop: threading.Event | None = None,
) -> DemoFigures:
    """Restyle the clip twice, each frame on its own and with fusion, and print the figures.

    folder   folder of demo.mp4 (with fusion, with sound) and demo_side_by_side.mp4 (source, each frame on its own, with
             fusion), created if it is missing. Both files appear when both are complete
    frames   number of frames, two or more; None: the whole clip
    bundle   name or folder of another bundle; all other settings are the defaults of a run
    console  for progress and the table
    stop     ends the demonstration when it is set

    Raises WarpfuseError, and KeyboardInterrupt when stopped. Then the folder has no new files.
    """
    console = console or Console(highlight=False)
    stop = stop or threading.Event()
    folder = Path(folder)
    with contextlib.suppress(OSError):  # `check` reports what is wrong with the folder
        folder.mkdir(parents=True, exist_ok=True)
    for name in (STEADY, SIDE_BY_SIDE):
        check(str(folder / name), source=str(clip))
    common = {"source": str(clip), "bundle": bundle, "frames": frames}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".demo-") as temporary:
        alone, steady, beside = (str(Path(temporary) / f"{name}.mp4") for name in ("alone", "steady", "beside"))
        configs = {
            "each frame alone": validate({**common, "sinks": [alone], "fusion": 0}),
            "steady": validate({**common, "sinks": [steady]}),
        }
        stats = _run_both(configs, console, stop)
        with _bar("side by side", console, stop) as advance:
            compose([str(clip), alone, steady], ["source", *configs], beside, advance)
        consistency: dict[str, Figures] = {}
        for name, video in {"source": str(clip), "each frame alone": alone, "steady": steady}.items():
            with _bar(f"measure {name}", console, stop) as advance:
                size = stats["steady"].size  # for the clip too, since sharpness depends on the size
                consistency[name] = measure(str(clip), video, progress=advance, frames=frames, size=size)
        Path(beside).replace(folder / SIDE_BY_SIDE)
        Path(steady).replace(folder / STEADY)
    figures = DemoFigures(runs={name: each.to_dict() for name, each in stats.items()}, consistency=consistency)
    console.print(table(figures))
    console.print(f"{folder / STEADY}\n{folder / SIDE_BY_SIDE}", markup=False)
    return figures


def compose(videos: Sequence[str], labels: Sequence[str], sink: str, progress: Advance | None = None) -> None:
    """Write videos side by side with labels, at the size of the last one, until the shortest ends.

    The sound is that of the first video. Memory holds one frame of each. Raises SourceError, SinkError, SinkLost.
    """
    with ExitStack() as held:
        last = held.enter_context(closing(open_source(videos[-1])))
        size = last.info.width, last.info.height
        sources = [held.enter_context(closing(open_source(url, size=size))) for url in videos[:-1]] + [last]
        info = sources[0].info
        wide = len(videos) * size[0] + (len(videos) - 1) * _SEAM_PX, size[1]
        out = open_sink(sink, info, wide, sound_from=info.path)
        held.callback(out.close, False)  # after close(True) it does nothing
        tags = [_tag(label, size[0]) for label in labels]
        canvas = np.full((wide[1], wide[0], 3), 16, np.uint8)
        pictures = iter(lambda: [source.read() for source in sources], [None])
        for count, row in enumerate(pictures, start=1):
            panels = [frame for frame in row if frame is not None]
            if len(panels) < len(row):
                break
            for i, (frame, tag) in enumerate(zip(panels, tags, strict=True)):
                x = i * (size[0] + _SEAM_PX)
                canvas[:, x : x + size[0]] = frame.rgb
                _stick(canvas[:, x : x + size[0]], tag)
            out.write(RawFrame(panels[0].stamp, canvas))
            if progress is not None:
                progress(count, last.info.frames)
        out.close(True)


def table(figures: DemoFigures) -> Group:
    """Tables of the figures: speed and latency of both runs, and consistency of the clip and both results."""
    first = next(iter(figures["runs"].values()))
    width, height = first["size"]
    speed = Table(
        title=f"{width}x{height} on {first['device']}, {first['backend']}, {first['precision']}",
        title_justify="left",
        box=None,
    )
    for heading in ("", "fps", "latency p50", "p95", "p99 ms"):
        speed.add_column(heading, justify="right" if heading else "left")
    for name, run_figures in figures["runs"].items():
        latency = run_figures["latency_ms"]
        cells = (f"{run_figures['fps']:.1f}", *(f"{latency[p]:.0f}" for p in ("p50", "p95", "p99")))
        speed.add_row(name, *cells)
    steady = Table(title="consistency", title_justify="left", box=None)
    for heading in ("", "e_warp x 1000", "tof px", "sharpness x 1000"):
        steady.add_column(heading, justify="right" if heading else "left")
    for name, measured in figures["consistency"].items():
        cells = (f"{measured['e_warp'] * 1000:.3f}", f"{measured['tof']:.3f}", f"{measured['sharpness'] * 1000:.2f}")
        steady.add_row(name, *cells)
    return Group("", speed, "", steady, "e_warp: change along the motion, less is steadier; tof: motion that is not the"
                 " source's;\nsharpness: must not fall, a blur would be steady too", "")  # fmt: skip


def _run_both(configs: dict[str, GraphConfig], console: Console, stop: threading.Event) -> dict[str, Stats]:
    """Run both. A message of both runs is printed once."""
    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            console.print(line, style="dim", markup=False)

    stats = {}
    for name, config in configs.items():
        with _bar(f"style, {name}", console) as advance:
            stats[name] = run(config, progress=advance, say=say, stop=stop)
        if stats[name].interrupted:
            raise KeyboardInterrupt
    return stats


@contextmanager
def _bar(title: str, console: Console, stop: threading.Event | None = None) -> Iterator[Advance]:
    """A progress bar that is removed at the end. Advancing it raises KeyboardInterrupt if `stop` is set."""
    columns = (TextColumn(f"{title:<26}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def advance(done: int, total: int | None) -> None:
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            bar.update(task, completed=done, total=total)

        yield advance


def _tag(label: str, width: int) -> tuple[Picture, Picture]:
    """Colour and opacity, uint8 [h, w, 3] and [h, w, 1], of a label on a dark ground, for a panel this wide."""
    scale = max(0.35, min(1.0, width / 1000))
    (w, _), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_DUPLEX, scale, 1)
    (_, h), below = cv2.getTextSize("Ag", cv2.FONT_HERSHEY_DUPLEX, scale, 1)  # the same height for all tags
    pad = max(3, h // 2)
    ground = np.full((h + below + 2 * pad, w + 2 * pad, 3), 20, np.uint8)
    cv2.putText(ground, label, (pad, pad + h), cv2.FONT_HERSHEY_DUPLEX, scale, (245, 245, 245), 1, cv2.LINE_AA)
    opacity = np.maximum(ground.max(axis=2, keepdims=True), 170)
    return ground, opacity


def _stick(panel: Picture, tag: tuple[Picture, Picture]) -> None:
    """Blend a tag into the lower left corner of a panel, cropped to the panel."""
    colour, opacity = tag
    gap = max(2, panel.shape[1] // 64)
    h, w = min(colour.shape[0], panel.shape[0] - gap), min(colour.shape[1], panel.shape[1] - gap)
    spot = panel[panel.shape[0] - gap - h : panel.shape[0] - gap, gap : gap + w]
    share = opacity[:h, :w].astype(np.uint16)
    spot[:] = (spot * (255 - share) + colour[:h, :w] * share + 127) // 255
