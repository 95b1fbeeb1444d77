"""The flags of every command that takes a graph, said once.

`takes_a_graph` stays because typer reads flags from a signature alone: without it the table stood in every command.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from warpfuse.configuring import lora_scales

GraphFile = Annotated[Path | None, typer.Argument(metavar="[GRAPH.yaml]", help="Graph file; flags override its keys.")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="Any key: --set stages.fuse.weight=0.7")]


def graph_flags(
    graph: GraphFile = None,
    *,
    source: Annotated[
        list[str] | None, typer.Option(help="A path, camera:0, screen:, rtsp://, pattern: ... Several: a --sink each.")
    ] = None,
    sink: Annotated[
        list[str] | None, typer.Option(help="A path, virtualcam:, rtsp://, page:8080, null: ... (repeatable)")
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Name or folder of a bundle.")] = None,
    prompt: Annotated[str | None, typer.Option(help="A style, or a blend: 'ink:2, watercolour'.")] = None,
    negative: Annotated[str | None, typer.Option(help="What guidance pulls away from.")] = None,
    lora: Annotated[list[str] | None, typer.Option(metavar="NAME=SCALE", help="Of a live LoRA; repeatable.")] = None,
    steps: Annotated[str | None, typer.Option(metavar="K", help="UNet runs a frame, 1 to 20.")] = None,
    strength: Annotated[str | None, typer.Option(metavar="0..1", help="From the source to the full style.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size the networks run at.")] = None,
    fusion: Annotated[str | None, typer.Option(metavar="0..1", help="How firmly the style stays on things.")] = None,
    flow: Annotated[str | None, typer.Option(help="Optical flow: dis, embedded, or a flow bundle.")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, or one by name: that one or an error.")] = None,
    precision: Annotated[str | None, typer.Option(help="Of the UNet: auto, float or int8.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu")] = None,
    workers: Annotated[
        str | None, typer.Option(help="one: all stages in one process; stages: each in its own; auto by default.")
    ] = None,
    fps: Annotated[str | None, typer.Option(metavar="N", help="Constant rate of the sinks: repeat or skip.")] = None,
    background: Annotated[
        str | None, typer.Option(metavar="COLOUR", help="Where the source is transparent: black, '#ff8800'.")
    ] = None,
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


def asked(flags: dict[str, Any], **more: Any) -> tuple[Path | None, dict[str, Any], list[str] | None]:
    """What `configure` takes: the file, the keys that the flags of a graph and `more` are, and what was `--set`."""
    keys = {key: value for key, value in flags.items() if key not in ("graph", "settings", "sink", "lora")}
    loras = lora_scales(flags["lora"] or [])
    return flags["graph"], {**keys, "sinks": flags["sink"], "loras": loras, **more}, flags["settings"]
