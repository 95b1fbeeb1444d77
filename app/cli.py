"""The command `warpfuse`. Flags override the graph file, the graph file overrides the defaults."""

import errno
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from warpfuse.benchmark.command import bench
from warpfuse.comfy import installing
from warpfuse.commands import clustering, exporting, keys
from warpfuse.commands.bundles import bundles
from warpfuse.commands.controlling import ctl
from warpfuse.commands.serving import PageOptions, run_with_page
from warpfuse.commands.serving import serve as serve_page
from warpfuse.configuring import configure, configure_any, keys_of, with_sink
from warpfuse.doctor.command import doctor
from warpfuse.engine.errors import BadInput, WarpfuseError
from warpfuse.engine.files import write_whole
from warpfuse.engine.redact import guard_process
from warpfuse.flags import GraphFile, Setting, asked, takes_a_graph
from warpfuse.graph.errors import StageFailed
from warpfuse.shipped_clip import CLIP
from warpfuse.stages.errors import Stopped, StreamLost
from warpfuse.terminal import (
    INTERRUPTED,
    check_writable,
    complain,
    console,
    figures_if_lost,
    finish,
    progress_bar,
    say,
    stopped_by_signals,
    tell_url,
)
from warpfuse.version import __version__

# Note: imports inside the commands. torch and OpenCV take seconds, and the doctor must run where they are broken.

BAD_INPUT, LOST, FAILED = 2, 3, 4

MidiPort = Annotated[
    str | None, typer.Option(metavar="PORT", help="A MIDI controller changes it: the name of its port, or a part.")
]

app = typer.Typer(
    name="warpfuse",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Live video restyled with diffusion models, with a style that stays on the things in the picture.",
)
app.add_typer(exporting.app, name="export")
app.command("export-map")(exporting.export_map)
app.add_typer(installing.app, name="comfy")
app.add_typer(clustering.app, name="cluster")
app.command()(bench)
app.command("keys")(keys.keys)
app.command()(ctl)
app.command()(bundles)


def _show_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # read by its callback
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Live video restyled with diffusion models, with a style that stays on the things in the picture."""


def main() -> None:
    """Run the command and exit: 0 done, 1 `doctor --deep` finds the machine too slow, 2 bad input, 3 source or sink
    lost, 4 a stage failed, 130 interrupted."""
    guard_process()
    warnings.formatwarning = _in_one_line
    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Stopped:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # all is given back but a thread that may sit in FFmpeg: an orderly end is none with it
    except WarpfuseError as error:
        complain(str(error))
        code = _exit_code(error)
        if isinstance(error, StageFailed) and os.environ.get("WARPFUSE_TRACEBACK"):
            raise
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        complain(f"{str(error.filename)[:40]}...: a name longer than this system takes. Give a shorter one")
        code = BAD_INPUT
    except Exception as error:
        # Note: the command line library. Its exceptions moved between modules from version to version; what they
        # have in common is a message for the user.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if message():
            complain(message())
        code = BAD_INPUT
    sys.exit(code or 0)


def _in_one_line(message: Warning | str, *where: object, **line: object) -> str:
    """A warning as the command line shows it, without the place in the code that it came from."""
    return f"warning: {message}\n"


def _exit_code(error: WarpfuseError) -> int:
    if isinstance(error, BadInput):
        return BAD_INPUT
    return LOST if isinstance(error, StreamLost) else FAILED


@app.command()
@takes_a_graph
def run(
    *,
    name: Annotated[
        str | None, typer.Option(help="Name of the run for `warpfuse ctl`; by default from its source.")
    ] = None,
    stats: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write statistics of the run.")] = None,
    page: Annotated[int | None, typer.Option(metavar="PORT", help="Serve a control page during the run.")] = None,
    closed: Annotated[bool, typer.Option("--no-control", help="Do not accept `warpfuse ctl`.")] = False,
    metrics: Annotated[
        int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Serve metrics for Prometheus.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write the calls of stages, for Perfetto.")
    ] = None,
    midi: MidiPort = None,
    **flags: Any,
) -> int:
    """Restyle a video, or several at once."""
    for written in (stats, trace):
        if written is not None:
            check_writable(written)
    from warpfuse.graph.plan.checks import check_early

    if page is not None:
        if metrics is not None or trace is not None:
            raise BadInput("--page shows the figures itself; --metrics and --trace are for runs without it")
        shown = configure_any(*asked(flags, name=name))
        check_early(shown, watched=True)
        keys = keys_of(shown)
        with stopped_by_signals() as stop, figures_if_lost(stats):
            options = PageOptions(port=page, midi=midi)
            report = run_with_page(keys, options, stop=stop, say=say, tell_url=tell_url)
        return finish(report, stats)
    config = configure_any(*with_sink(*asked(flags, name=name), say))
    check_early(config)
    from warpfuse.graph.run import Observers
    from warpfuse.graph.run import run as run_graph

    beside = None
    if midi is not None:
        from warpfuse.midi import RunControls, controlled_by, port_named

        port = port_named(midi)  # before the networks are opened
        beside = lambda run: controlled_by(port, RunControls(run), say)  # noqa: E731
    observers = Observers(control=not closed, metrics=metrics, trace=trace, beside=beside)
    with stopped_by_signals() as stop, progress_bar() as progress, figures_if_lost(stats):
        report = run_graph(config, progress=progress, say=say, stop=stop, observers=observers)
    return finish(report, stats)


@app.command()
def host(
    graph: GraphFile = None,
    *,
    name: Annotated[str, typer.Option(help="Name of the host for `warpfuse ctl`.")] = "host",
    bundle: Annotated[str | None, typer.Option(help="Name or folder of a bundle.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu")] = None,
    stats: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write statistics of the host.")] = None,
    metrics: Annotated[
        int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Serve metrics for Prometheus.")
    ] = None,
    page: Annotated[int | None, typer.Option(metavar="PORT", help="Serve a control page instead of ctl.")] = None,
    settings: Setting = None,
) -> int:
    """Hold one set of networks for streams that come and go: `warpfuse ctl NAME add`, `remove`, `streams`, or the page.

    It begins with those of the file, if there are any, and goes on until it is stopped.
    """
    if stats is not None:
        check_writable(stats)
    from warpfuse.graph.plan.checks import check_early

    flags = {"name": name, "bundle": bundle, "device": device, "host": True}
    config = configure_any(graph, flags, settings)
    check_early(config, watched=page is not None)
    if page is not None:
        if metrics is not None:
            raise BadInput("--page shows the figures itself; --metrics is for hosts without it")
        with stopped_by_signals() as stop, figures_if_lost(stats):
            report = run_with_page(keys_of(config), PageOptions(port=page), stop=stop, say=say, tell_url=tell_url)
        return finish(report, stats)
    from warpfuse.graph.run import Observers
    from warpfuse.graph.run import run as run_graph

    with stopped_by_signals() as stop, figures_if_lost(stats):
        report = run_graph(config, say=say, stop=stop, observers=Observers(control=True, metrics=metrics))
    return finish(report, stats)


@app.command()
@takes_a_graph
def serve(
    *,
    port: Annotated[int, typer.Option(help="Port of the page; 0: any free one.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to serve on; one that other machines reach needs a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(help="Token that every visitor must have.", envvar="WARPFUSE_TOKEN")
    ] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another host name for the page.")] = None,
    osc: Annotated[int | None, typer.Option(metavar="PORT", help="Accept settings by OSC on this port.")] = None,
    osc_host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Accept OSC here; 0.0.0.0: on all. Whoever reaches it controls the run."),
    ] = "127.0.0.1",
    midi: MidiPort = None,
    record_to: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for recordings.")] = None,
    **flags: Any,
) -> None:
    """Serve a control page: start, watch and change runs from a browser. Without a source it plays a clip."""
    from warpfuse.graph.plan.checks import check_early

    graph, asked_for, settings = asked(flags)
    config = configure_any(graph, asked_for, settings)
    if keys_of(config).keys().isdisjoint(("source", "streams")):
        config = configure_any(graph, {**asked_for, "source": [str(CLIP)], "loop": True}, settings)
    check_early(config, watched=True)
    keys = keys_of(config)
    options = PageOptions(host, port, token, tuple(allow_host or ()), osc, osc_host, midi, record_to)
    with stopped_by_signals("closing the page; once more to stop at once") as stop:
        serve_page(keys, options, stop=stop, say=say, tell_url=tell_url)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Folder for demo.mp4 and demo_side_by_side.mp4.")] = Path(),
) -> None:
    """Stylize the clip in the package: demo.mp4, demo_side_by_side.mp4, and the figures."""
    from warpfuse.commands.demo import demo as run_demo

    with stopped_by_signals() as stop:
        run_demo(folder, stop=stop, console=console)


app.command()(doctor)


@app.command()
def metrics(
    source: Annotated[str, typer.Argument(help="The source video.")],
    styled: Annotated[str, typer.Argument(help="The styled video.")],
    as_json: Annotated[bool, typer.Option("--json", help="Figures as one JSON object.")] = False,
) -> None:
    """Measure how steady a styled video is, and that it was not merely blurred."""
    from warpfuse.commands.measure import measure

    with progress_bar() as progress:
        figures = measure(source, styled, progress=progress, say=say)
    if as_json:
        print(json.dumps({name: None if value != value else value for name, value in figures.items()}))
        return
    table = Table("figure", "value", box=None)
    for name, value in figures.items():
        table.add_row(name, f"{value:.6g}")
    Console().print(table)


@app.command()
def worker(
    graph: Annotated[Path, typer.Argument(metavar="GRAPH.yaml", help="The file that the run was started with.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of this worker in the file.")],
) -> int:
    """Be one worker of a run that another host has started. It ends with the run."""
    from warpfuse.graph.processes.remote_worker import be_worker

    return be_worker(configure(graph, {}, None, {"source": "SOURCE", "sinks": ["SINK"]}), name)


@app.command()
def graph(
    graph: GraphFile = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Write the drawing as SVG.")] = None,
    settings: Setting = None,
) -> None:
    """Draw a graph: stages, links, slots, delays, placement; of a run under way (its name), what flows on each link."""
    if graph is not None and not graph.exists() and graph.suffix not in (".yaml", ".yml"):
        from warpfuse.commands.controlling import flows

        Console().print(flows(str(graph)))
        return
    from warpfuse.graph.plan import draw
    from warpfuse.graph.plan.streams import Streams, plan_as_asked, plan_streams

    config = configure_any(graph, {}, settings, {"source": "SOURCE", "sinks": ["SINK"]})
    plan = plan_streams(config) if isinstance(config, Streams) else plan_as_asked(config)
    if svg is not None:
        check_writable(svg)
        write_whole(svg, draw.svg(plan).encode())
    Console().print(draw.terminal(plan))


@app.command()
def version() -> None:
    """The version."""
    print(__version__)
