"""The flags of all commands that take a graph.

Typer reads flags from the signature of a function only. `takes_a_graph` gives the commands a common signature.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from warpfuse.configuring import named_pictures, named_scales
from warpfuse.graph.errors import ConfigError
from warpfuse.stages.sources.schemes import path_of, scheme_of

GraphFile = Annotated[Path | None, typer.Argument(metavar="[GRAPH.yaml]", help="Graph file; flags override its keys.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[GRAPH.yaml | SOURCE [SINK]]", help="Graph file (flags override its keys), or source and sink."
    ),
]
Setting = Annotated[list[str] | None, typer.Option("--set", help="Any key: --set stages.fuse.weight=0.7")]


def graph_flags(
    words: Words = None,
    *,
    source: Annotated[
        list[str] | None,
        typer.Option(help="A path, camera:0, screen:, rtsp://, pattern: ... For several give each a --sink."),
    ] = None,
    sink: Annotated[
        list[str] | None, typer.Option(help="A path, virtualcam:, rtsp://, page:8080, null: ... (repeatable)")
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Name or folder of a bundle.")] = None,
    prompt: Annotated[str | None, typer.Option(help="A style, or a blend: 'ink:2, watercolour'.")] = None,
    negative: Annotated[str | None, typer.Option(help="What guidance pulls away from.")] = None,
    lora: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SCALE", help="Scale of a live LoRA (repeatable).")
    ] = None,
    control: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SCALE", help="Scale of a control of the bundle (repeatable).")
    ] = None,
    style_image: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE[:SCALE]", help="A picture as a prompt, if the bundle takes one (repeatable)."),
    ] = None,
    steps: Annotated[str | None, typer.Option(metavar="K", help="Runs of the UNet for each frame, 1 to 20.")] = None,
    strength: Annotated[
        str | None, typer.Option(metavar="0..1", help="0: the source picture, 1: the full style.")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size the networks run at.")] = None,
    mirror: Annotated[bool | None, typer.Option("--mirror", help="Swap left and right of the source.")] = None,
    rotate: Annotated[str | None, typer.Option(metavar="DEGREES", help="Turn the source: 90, 180, 270.")] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="fill|letterbox|stretch", help="How to fit a source of another aspect ratio."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size of the output; pictures are scaled to it.")
    ] = None,
    fusion: Annotated[str | None, typer.Option(metavar="0..1", help="How firmly the style stays on objects.")] = None,
    flow: Annotated[str | None, typer.Option(help="Optical flow: dis, embedded, or a flow bundle.")] = None,
    mask: Annotated[
        str | None, typer.Option(metavar="BUNDLE|file:PATH", help="Style only this part: person, or a drawn mask.")
    ] = None,
    keyframe: Annotated[
        str | None, typer.Option(metavar="FILE[:SECONDS]", help="A painted frame of the source, and its time.")
    ] = None,
    cache_deep: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Run the deep part of the UNet every N-th frame, if the bundle is split for it."
        ),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="auto, or a name; an error if it cannot be used.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precision of the UNet: auto, float or int8.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu")] = None,
    workers: Annotated[
        str | None, typer.Option(help="one: all stages in one process; stages: each in its own; auto by default.")
    ] = None,
    fps: Annotated[
        str | None, typer.Option(metavar="N", help="Constant rate of the sinks; frames are repeated or skipped.")
    ] = None,
    background: Annotated[
        str | None, typer.Option(metavar="COLOUR", help="Colour behind a transparent source: black, '#ff8800'.")
    ] = None,
    sound_delay: Annotated[
        str | None,
        typer.Option(metavar="SECONDS", help="Delay of a live source's sound in recordings and streams, -1 to 10."),
    ] = None,
    realtime: Annotated[
        bool | None,
        typer.Option("--realtime", help="Read a file at its own rate, like a camera; late frames are dropped."),
    ] = None,
    loop: Annotated[
        bool | None, typer.Option("--loop", help="Start a file again when it ends; implies its own rate.")
    ] = None,
    on_fault: Annotated[
        str | None,
        typer.Option(
            metavar="hold|passthrough",
            help="What a virtual camera shows without styled pictures: the last one, or the source.",
        ),
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Seed of the noise.")] = None,
    frames: Annotated[str | None, typer.Option(metavar="N", help="Stop after N frames.")] = None,
    threads: Annotated[str | None, typer.Option(metavar="N", help="Cores to use; all by default.")] = None,
    settings: Setting = None,
) -> None:
    """Never called: its signature is the list of the flags. Values are validated by the configuration."""


def takes_a_graph(command: Callable[..., Any]) -> Callable[..., Any]:
    """`command` with a signature that has the flags of a graph in place of `**flags`."""
    own = inspect.signature(command, eval_str=True)
    told = [*inspect.signature(graph_flags, eval_str=True).parameters.values()]
    told += [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=told)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in told}
    return command


def asked(flags: dict[str, Any], **more: Any) -> tuple[Path | None, dict[str, Any], list[str] | None]:
    """The arguments for `configure`: graph file, keys of the flags of a graph and of `more`, values of `--set`.

    Raises ConfigError for words that are neither a graph file nor a source and a sink.
    """
    apart = ("words", "settings", "sink", "lora", "control", "style_image", "keyframe", "cache_deep")
    keys = {key: value for key, value in flags.items() if key not in apart}
    named: dict[str, Any] = {
        key: named_scales(f"--{flag}", flags[flag] or []) for key, flag in (("loras", "lora"), ("controls", "control"))
    }
    named["images"] = named_pictures("--style-image", flags["style_image"] or [])
    graph, source, sink = told_apart(flags["words"] or [])
    if source is not None and keys["source"]:
        raise ConfigError(f"two sources: {source!r} and --source {keys['source'][0]!r}; give one of them")
    if source is not None:
        keys["source"] = [source]
    sinks = ([sink] if sink is not None else []) + (flags["sink"] or [])
    stages: dict[str, Any] = {} if flags["keyframe"] is None else {"anchor": _keyframe(flags["keyframe"])}
    if flags["cache_deep"] is not None:
        stages["predict"] = {"cache_deep": flags["cache_deep"]}
    return graph, {**keys, "sinks": sinks or None, **named, "stages": stages or None, **more}, flags["settings"]


def _keyframe(given: str) -> dict[str, Any]:
    """The keys of `stages.anchor` for FILE or FILE:SECONDS."""
    name, colon, seconds = given.rpartition(":")
    if colon and re.fullmatch(r"\d+(\.\d*)?|\.\d+", seconds):
        return {"picture": name, "at": float(seconds), "frame": ""}
    return {"picture": given, "at": None, "frame": ""}


def told_apart(words: list[str]) -> tuple[Path | None, str | None, str | None]:
    """(graph file, source, sink) in the words of a command. Raises ConfigError for more words."""
    if not words:
        return None, None, None
    first, *rest = words
    if _is_graph(first):
        if rest:
            raise ConfigError(f"{rest[0]!r} behind graph file {first!r}: expected flags, as in --sink {rest[0]}")
        return Path(first), None, None
    if len(rest) > 1:
        raise ConfigError(f"one source and one sink are taken, got {len(words)} names; give more with --sink")
    if rest and _is_graph(rest[0]):
        raise ConfigError(f"graph file {rest[0]!r} behind a source: give the source with --source {first}")
    if rest and scheme_of(rest[0]) == "file" and path_of(rest[0]).is_file():  # `run *.mp4` must not destroy a film
        raise ConfigError(f"{rest[0]} is there already; to replace it give it as --sink {rest[0]}")
    return None, first, rest[0] if rest else None


def _is_graph(word: str) -> bool:
    """The word is a graph file: by its ending, or if it has none and is a text file."""
    ending = Path(word).suffix.lower()
    if ending or not Path(word).is_file():
        return ending in (".yaml", ".yml", ".json")
    with Path(word).open("rb") as file:
        return b"\0" not in file.read(4096)
