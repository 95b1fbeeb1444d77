"""The command `warpfuse`. Flags override the graph file, the graph file overrides the defaults."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from warpfuse import exporting, keys
from warpfuse.benchmark.command import bench
from warpfuse.controlling import ctl
from warpfuse.engine.bundle import (
    BundleFile,
    find_bundles,
    load_autoencoder_bundle,
    load_bundle,
    load_flow_bundle,
    read_description,
)
from warpfuse.engine.errors import BadInput, BundleError, WarpfuseError
from warpfuse.engine.redact import guard_process, redact
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.serving import PageOptions, run_with_page, with_flags_of
from warpfuse.serving import serve as serve_page
from warpfuse.stages.errors import StreamLost
from warpfuse.version import __version__

if TYPE_CHECKING:
    from warpfuse.graph.config import GraphConfig
    from warpfuse.graph.meters import Stats

# Note: imports inside the commands. torch and OpenCV take seconds, and the doctor must run where they are broken.

BAD_INPUT, LOST, FAILED, INTERRUPTED = 2, 3, 4, 130

app = typer.Typer(
    name="warpfuse",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Live video restyled with diffusion models, with a style that stays on the things in the picture.",
)
app.add_typer(exporting.app, name="export")
app.command()(bench)
app.command("keys")(keys.keys)
app.command()(ctl)
_console = Console(stderr=True, highlight=False)

_OPENED_BY: dict[str, Callable[[str], object]] = {
    "latent-diffusion": load_bundle,
    "flow": load_flow_bundle,
    "autoencoder": load_autoencoder_bundle,
}


def main() -> None:
    """Run the command and exit: 0 done, 2 bad input, 3 source or sink lost, 4 a stage failed, 130 interrupted."""
    guard_process()
    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
    except WarpfuseError as error:
        _complain(str(error))
        code = _exit_code(error)
        if isinstance(error, StageFailed) and os.environ.get("WARPFUSE_TRACEBACK"):
            raise
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        # Note: the command line library. Its exceptions moved between modules from version to version; what they
        # have in common is a message for the user.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if message():
            _complain(message())
        code = BAD_INPUT
    sys.exit(code or 0)


def _exit_code(error: WarpfuseError) -> int:
    if isinstance(error, BadInput):
        return BAD_INPUT
    return LOST if isinstance(error, StreamLost) else FAILED


def _complain(text: str) -> None:
    print(f"warpfuse: {redact(' '.join(text.split()))}", file=sys.stderr)


def _say(line: str) -> None:
    _console.print(redact(line), style="dim", markup=False)


def _tell_url(url: str) -> None:
    """Where the page is. Shown as it is: the token in it is for who started the page, and is told nowhere else."""
    print(f"control page: {url}", file=sys.stderr, flush=True)


GraphFile = Annotated[Path | None, typer.Argument(metavar="[GRAPH.yaml]", help="Graph file; flags override its keys.")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="Any key: --set stages.fuse.weight=0.7")]


@app.command()
def run(
    graph: GraphFile = None,
    source: Annotated[str | None, typer.Option(help="A path, camera:0, screen:, rtsp://, pattern: ...")] = None,
    sink: Annotated[list[str] | None, typer.Option(help="A path, or null: (may be repeated)")] = None,
    bundle: Annotated[str | None, typer.Option(help="Name or folder of a bundle.")] = None,
    prompt: Annotated[str | None, typer.Option(help="A style, or a blend: 'ink:2, mosaic'.")] = None,
    negative: Annotated[str | None, typer.Option(help="What guidance pulls away from.")] = None,
    lora: Annotated[list[str] | None, typer.Option(metavar="NAME=SCALE", help="Of a live LoRA; repeatable.")] = None,
    steps: Annotated[str | None, typer.Option(metavar="K", help="UNet runs a frame, 1 to 4.")] = None,
    strength: Annotated[str | None, typer.Option(metavar="0..1", help="From the source to the full style.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size the networks run at.")] = None,
    fusion: Annotated[str | None, typer.Option(metavar="0..1", help="How firmly the style stays on things.")] = None,
    flow: Annotated[str | None, typer.Option(help="Optical flow: dis, or a flow bundle.")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, or one by name: that one or an error.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu")] = None,
    workers: Annotated[
        str | None, typer.Option(help="one: all stages in one process; stages: each in its own; auto by default.")
    ] = None,
    fps: Annotated[str | None, typer.Option(metavar="N", help="Constant rate of the sinks: repeat or skip.")] = None,
    realtime: Annotated[
        bool | None, typer.Option("--realtime", help="Read a file at its own rate, as a camera: drop what is late.")
    ] = None,
    on_fault: Annotated[
        str | None,
        typer.Option(metavar="hold|passthrough", help="A virtual camera without styled pictures: last one, or source."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What `warpfuse ctl` calls the run; after its source.")] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Seed of the noise.")] = None,
    frames: Annotated[str | None, typer.Option(metavar="N", help="Stop after N frames.")] = None,
    threads: Annotated[str | None, typer.Option(metavar="N", help="Cores to use; all by default.")] = None,
    stats: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the figures of the run.")] = None,
    page: Annotated[int | None, typer.Option(metavar="PORT", help="Serve a control page while it runs.")] = None,
    control: Annotated[bool, typer.Option("--control/--no-control", help="Let `warpfuse ctl` in.")] = True,
    metrics: Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535, help="For Prometheus.")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Calls of stages, for Perfetto.")] = None,
    settings: Setting = None,
) -> int:
    """Restyle a video."""
    flags = {
        "source": source, "sinks": sink, "bundle": bundle, "prompt": prompt, "negative": negative, "steps": steps,
        "strength": strength, "size": size, "fusion": fusion, "flow": flow, "backend": backend, "device": device,
        "workers": workers, "seed": seed, "frames": frames, "threads": threads, "loras": _loras(lora or []),
        "fps": fps, "realtime": realtime, "name": name, "on_fault": on_fault,
    }  # fmt: skip
    config = _configure(graph, flags, settings)
    for written in (stats, trace):
        if written is not None:
            _check_writable(written)
    if page is not None:
        if metrics is not None or trace is not None:
            raise BadInput("--page shows the figures itself; --metrics and --trace are for runs without it")
        return _run_with_page(config, page, stats)
    from warpfuse.graph.run import Watch
    from warpfuse.graph.run import run as run_graph

    watch = Watch(control=control, metrics=metrics, trace=trace)
    with _stopped_by_signals() as stop, _progress() as progress, _figures_if_lost(stats):
        report = run_graph(config, progress=progress, say=_say, stop=stop, watch=watch)
    return _finish(report, stats)


def _run_with_page(config: "GraphConfig", port: int, stats: Path | None) -> int:
    keys = config.model_dump(mode="json", exclude_defaults=True)
    with _stopped_by_signals() as stop, _figures_if_lost(stats):
        report = run_with_page(keys, PageOptions(port=port), stop=stop, say=_say, tell_url=_tell_url)
    return _finish(report, stats)


@contextmanager
def _figures_if_lost(stats: Path | None) -> Iterator[None]:
    """Write what a run came to until its source or sink was lost."""
    try:
        yield
    except StreamLost as lost:
        if stats is not None and lost.stats is not None:
            _write_json(stats, lost.stats.to_dict())
        raise


def _finish(report: "Stats", stats: Path | None) -> int:
    if stats is not None:
        _write_json(stats, report.to_dict())
    _summarise(report)
    return INTERRUPTED if report.interrupted else 0


def serve(
    *,
    port: Annotated[int, typer.Option(help="Port of the page; 0: any that is free.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to serve on; others than this machine's need a token.")
    ] = "127.0.0.1",
    token: Annotated[str | None, typer.Option(help="Asked of every visitor.", envvar="WARPFUSE_TOKEN")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name the page may be called by.")] = None,
    osc: Annotated[int | None, typer.Option(metavar="PORT", help="Take settings by OSC on this port, too.")] = None,
    record_to: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of recordings.")] = None,
    **flags: Any,
) -> None:
    """Serve a control page: start, watch and change runs from a browser. Takes the flags of `run`."""
    graph, settings = flags.pop("graph"), flags.pop("settings")
    flags["sinks"], flags["loras"] = flags.pop("sink"), _loras(flags.pop("lora") or [])
    config = _configure(graph, flags, settings)
    keys = config.model_dump(mode="json", exclude_defaults=True)
    options = PageOptions(host, port, token, tuple(allow_host or ()), osc, record_to)
    with _stopped_by_signals("closing the page; once more to stop at once") as stop:
        serve_page(keys, options, stop=stop, say=_say, tell_url=_tell_url, first=bool(config.source))


app.command()(with_flags_of(run, serve, (
    "graph", "source", "sink", "bundle", "prompt", "negative", "lora", "steps", "strength", "size", "fusion", "flow",
    "backend", "device", "workers", "seed", "frames", "threads", "settings",
)))  # fmt: skip


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where demo.mp4 and demo_side_by_side.mp4 go.")] = Path(),
) -> None:
    """Stylize the clip in the package: demo.mp4, demo_side_by_side.mp4, and the figures."""
    from warpfuse.demo import demo as run_demo

    with _stopped_by_signals() as stop:
        run_demo(folder, stop=stop, console=_console)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
    cameras: Annotated[bool, typer.Option("--cameras", help="List cameras and what they give.")] = False,
) -> None:
    """What this machine has, what it lacks, and the command that fixes it."""
    if cameras:
        from warpfuse import cameras as listing

        found = listing.cameras()
        if as_json:
            print(json.dumps({"cameras": listing.to_dict(found)}, indent=1))
        else:
            Console().print(listing.table(found))
        return
    from warpfuse.doctor import examine, table, to_json

    findings = examine()
    if as_json:
        print(to_json(findings))
    else:
        Console().print(table(findings))


@app.command()
def metrics(
    source: Annotated[str, typer.Argument(help="The video that was styled.")],
    styled: Annotated[str, typer.Argument(help="What came out.")],
    as_json: Annotated[bool, typer.Option("--json", help="Figures as one JSON object.")] = False,
) -> None:
    """Measure how steady a styled video is, and that it was not merely blurred."""
    from warpfuse.measure import measure

    with _progress() as progress:
        figures = measure(source, styled, progress=progress, say=_say)
    if as_json:
        print(json.dumps({name: None if value != value else value for name, value in figures.items()}))
        return
    table = Table("figure", "value", box=None)
    for name, value in figures.items():
        table.add_row(name, f"{value:.6g}")
    Console().print(table)


@app.command()
def bundles() -> None:
    """The bundles that can be asked for by name, and their styles."""
    console = Console()
    for name, folder in find_bundles().items():
        try:
            about = read_description(folder)
            _OPENED_BY[about.kind](str(folder))  # every file is there, and what it was
        except BundleError as error:
            console.print(f"{name}  cannot be used: {error}", markup=False)
            continue
        console.print(f"{name}  {about.kind}, licence {about.licence}, {folder}", markup=False)
        if isinstance(about, BundleFile):
            for style, description in about.styles.items():
                mark = " (default)" if style == about.default_style else ""
                console.print(f"    {style:<14}{description.about}{mark}", markup=False)
            for lora in about.loras:
                console.print(f"    live LoRA {lora.name}, {lora.default:g} by default", markup=False)


@app.command()
def worker(
    graph: Annotated[Path, typer.Argument(metavar="GRAPH.yaml", help="The file that the run was started with.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The worker to be, of those the file places.")],
) -> int:
    """Be one worker of a run that another host has started. It ends with the run."""
    from warpfuse.graph.far_worker import be_worker

    return be_worker(_configure(graph, {}, None, {"source": "SOURCE", "sinks": ["SINK"]}), name)


@app.command()
def graph(
    graph: GraphFile = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Write the drawing as SVG.")] = None,
    settings: Setting = None,
) -> None:
    """Draw a graph: stages, links, slots, delays, placement; of a run under way (its name), what flows on each link."""
    if graph is not None and not graph.exists() and graph.suffix not in (".yaml", ".yml"):
        from warpfuse.controlling import flows

        Console().print(flows(str(graph)))
        return
    from warpfuse.graph import draw
    from warpfuse.graph.plan import plan_graph
    from warpfuse.stages.sources.schemes import LIVE_SCHEMES, scheme_of

    defaults = {"source": "SOURCE", "sinks": ["SINK"]}
    config = _configure(graph, {}, settings, defaults)
    plan = plan_graph(config, live=config.realtime or scheme_of(config.source) in LIVE_SCHEMES)
    if svg is not None:
        _check_writable(svg)
        svg.write_text(draw.svg(plan), encoding="utf-8")
    Console().print(draw.terminal(plan))


@app.command()
def version() -> None:
    """The version."""
    print(__version__)


def _configure(
    graph: Path | None, flags: dict[str, Any], settings: list[str] | None, defaults: dict[str, Any] | None = None
) -> "GraphConfig":
    from warpfuse.graph.config import read_graph_file, set_key, validate

    raw = {**(defaults or {}), **(read_graph_file(graph) if graph is not None else {})}
    if flags.get("fusion") is not None and isinstance(raw.get("stages"), dict):
        fuse = raw["stages"].get("fuse")  # the flag overrides the file, in whichever of its two spellings
        if isinstance(fuse, dict):
            fuse.pop("weight", None)
    in_file = raw.get("loras")
    raw.update({key: value for key, value in flags.items() if value is not None})
    if flags.get("loras") and isinstance(in_file, dict):
        raw["loras"] = {**in_file, **flags["loras"]}  # one by one: a flag for one leaves the others as they are
    for assignment in settings or []:
        set_key(raw, assignment)
        if assignment.partition("=")[0].strip() == "stages.fuse.weight":
            raw.pop("fusion", None)
    return validate(raw, where=str(graph) if graph is not None and not flags else "")


def _loras(flags: list[str]) -> dict[str, str] | None:
    """{name: scale}, the scale not yet read; None where no flag was given."""
    scales = {}
    for flag in flags:
        name, equals, scale = flag.rpartition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--lora {flag!r}: expected NAME=SCALE, as in ink=0.7")
        if name.strip() in scales:
            raise ConfigError(f"--lora {name.strip()} is given twice; give it once")
        scales[name.strip()] = scale.strip()
    return scales or None


@contextmanager
def _stopped_by_signals(
    notice: str = "finishing what has been read; once more to stop at once",
) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process at once."""
    stop = threading.Event()

    def handler(number: int, _: object) -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()
        _say(notice)

    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, before in old.items():
            signal.signal(number, before)


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=_console, transient=True, disable=not _console.is_terminal) as bar:
        task = bar.add_task("frames", total=None, rate="")

        def advance(frames: int, total: int | None) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=frames, total=total, rate=f"{speed:.1f} fps" if speed else "")

        yield advance


def _check_writable(path: Path) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written: give a file in a folder that exists and is writable")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _summarise(report: "Stats") -> None:
    figures = report.to_dict()
    latency = figures["latency_ms"]
    _console.print(
        f"{figures['frames']['out']} frames of {report.size[0]}x{report.size[1]} in {report.seconds:.1f} s, "
        f"{report.fps:.1f} fps; latency p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f}, p99 {latency['p99']:.0f}"
    )
