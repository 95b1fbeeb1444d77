"""The flags of every command that takes a graph, and the configuration that they and the graph file make."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warpfuse.graph.errors import ConfigError

if TYPE_CHECKING:
    from warpfuse.graph.config import GraphConfig

GraphFile = Annotated[Path | None, typer.Argument(metavar="[GRAPH.yaml]", help="Graph file; flags override its keys.")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="Any key: --set stages.fuse.weight=0.7")]


def graph_flags(
    graph: GraphFile = None,
    *,
    source: Annotated[str | None, typer.Option(help="A path, camera:0, screen:, rtsp://, pattern: ...")] = None,
    sink: Annotated[
        list[str] | None, typer.Option(help="A path, virtualcam:, rtsp://, page:8080, null: ... (repeatable)")
    ] = None,
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
    seed: Annotated[str | None, typer.Option(metavar="N", help="Seed of the noise.")] = None,
    frames: Annotated[str | None, typer.Option(metavar="N", help="Stop after N frames.")] = None,
    threads: Annotated[str | None, typer.Option(metavar="N", help="Cores to use; all by default.")] = None,
    settings: Setting = None,
) -> None:
    """Never called: its signature is the table of the flags. Values are read, and refused, by the configuration."""


def takes_a_graph(command: Callable[..., Any]) -> Callable[..., Any]:
    """`command`, whose `**flags` are told to the command line library as the flags of a graph."""
    own = inspect.signature(command, eval_str=True)
    told = [*inspect.signature(graph_flags, eval_str=True).parameters.values()]
    told += [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=told)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in told}
    return command


def configured(flags: dict[str, Any], **more: Any) -> "GraphConfig":
    """The configuration of the flags of a graph; more: other keys of it. Raises ConfigError."""
    keys = {key: value for key, value in flags.items() if key not in ("graph", "settings", "sink", "lora")}
    loras = _loras(flags["lora"] or [])
    return configure(flags["graph"], {**keys, "sinks": flags["sink"], "loras": loras, **more}, flags["settings"])


def configure(
    graph: Path | None, flags: dict[str, Any], settings: list[str] | None, defaults: dict[str, Any] | None = None
) -> "GraphConfig":
    """Keys of the file, over the defaults; of the flags over those; then `--set`. Raises ConfigError."""
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
