"""`warpfuse export`: making bundles from published weights. One command for each kind of source."""

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from typer.core import TyperGroup

from warpfuse.engine.errors import BadInput
from warpfuse.shipped_clip import CLIP

if TYPE_CHECKING:
    from torch import Tensor

    from warpfuse.export.targets import Targets

# Note: imports inside the commands. Exporting needs onnx, which a machine that only runs bundles may lack.

CHECKPOINT = "SOURCE"  # name of the default command in the help of the group; it is called without a name


class Sources(TyperGroup):
    """A group with a default command: arguments that do not begin with a command's name are those of `CHECKPOINT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the name of the default command."""
        named = args and args[0] in (*self.commands, *self.get_help_option_names(ctx))
        rest: list[str] = super().parse_args(ctx, args if named or not args else [CHECKPOINT, *args])
        return rest


app = typer.Typer(no_args_is_help=True, cls=Sources, help="Make bundles from published weights.")

Size = Annotated[str, typer.Option(metavar="WxH", help="Size of the pictures the network takes, pixels.")]
To = Annotated[
    str, typer.Option(metavar="onnx,torch,tensorrt-rtx,tensorrt", help="Formats to write; onnx is always written.")
]
Gpu = Annotated[
    str | None, typer.Option(metavar="sm89[,sm120]", help="GPUs of the tensorrt-rtx plans; default: the one here.")
]
Check = Annotated[bool, typer.Option("--check", help="Print the error of every network against torch in float32.")]
Folder = Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the bundle.")]


@app.command("raft-small")
def raft_small(
    weights: Annotated[Path, typer.Option(metavar="FILE", help="raft-small.pth")],
    size: Size,
    iterations: Annotated[int, typer.Option(min=1, max=32, help="More are slower and more precise.")] = 6,
    to: To = "onnx",
    gpu: Gpu = None,
    check: Check = False,
    output: Folder = None,
) -> None:
    """RAFT-small (Teed and Deng 2020) as a flow bundle."""
    width, height = parse_size(size)
    require("onnx")
    targets = parse(to, gpu)
    from warpfuse.export.raft_bundle import export_raft_small
    from warpfuse.export.raft_small import load_raft_small

    folder = output or Path(f"raft-small-{width}x{height}")
    bundle = export_raft_small(folder, load_raft_small(weights, iterations), (width, height), targets, check, print)
    print(f"wrote {bundle.folder}: {width}x{height}, {iterations} iterations, {bundle.about.licence}")


@app.command("taef2")
def taef2(
    encoder: Annotated[Path, typer.Option(metavar="FILE", help="taef2_encoder.pth")],
    decoder: Annotated[Path, typer.Option(metavar="FILE", help="taef2_decoder.pth")],
    size: Size,
    to: To = "onnx",
    gpu: Gpu = None,
    check: Check = False,
    output: Folder = None,
) -> None:
    """The tiny autoencoder of FLUX.2's latents, the encoder and decoder of a diffusion bundle."""
    width, height = parse_size(size)
    require("onnx")
    targets = parse(to, gpu)
    from warpfuse.export.taef2 import export_taef2, load_decoder, load_encoder

    folder = output or Path(f"taef2-{width}x{height}")
    halves = load_encoder(encoder), load_decoder(decoder)
    bundle = export_taef2(folder, *halves, (width, height), targets, check, print)
    print(f"wrote {bundle.folder}: {width}x{height}, {bundle.about.channels} channels, {bundle.about.licence}")


@app.command(CHECKPOINT)
def checkpoint(
    source: Annotated[str, typer.Argument(help="A diffusers folder, a .safetensors file, or a hub id.")],
    size: Size,
    steps: Annotated[
        int, typer.Option(min=1, max=4, metavar="K", help="Runs of the UNet for each frame; the rows of its batch.")
    ],
    lora: Annotated[
        list[str] | None, typer.Option(metavar="FILE[:SCALE]", help="A LoRA to merge in (repeatable).")
    ] = None,
    lora_live: Annotated[
        bool, typer.Option("--lora-live", help="Keep the LoRAs' scales adjustable: run --lora NAME=SCALE.")
    ] = False,
    embedding: Annotated[
        list[str] | None, typer.Option(metavar="FILE[:TOKEN]", help="A textual inversion (repeatable).")
    ] = None,
    vae: Annotated[
        str, typer.Option(metavar="full|taesd|FILE|FOLDER|ID", help="The autoencoder; full: the checkpoint's own.")
    ] = "full",
    prediction: Annotated[
        str | None,
        typer.Option(metavar="epsilon|v|v-ztsnr", help="What the UNet predicts, if the checkpoint does not say."),
    ] = None,
    clip_skip: Annotated[
        int | None, typer.Option(metavar="N", help="Take the text encoder's state N layers from its end (1: the last).")
    ] = None,
    to: To = "onnx",
    gpu: Gpu = None,
    dtype: Annotated[str, typer.Option(metavar="fp16|bf16|fp32", help="Number format of the networks.")] = "fp16",
    quantize: Annotated[
        str | None,
        typer.Option(metavar="fp8|int8", help="8-bit products of the UNet, for cards; fp8: RTX 40 and later."),
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="VIDEO", help="What --quantize finds its scales on; default: the demo's clip.")
    ] = None,
    solver: Annotated[str | None, typer.Option(help="Instead of the family's own; lcm with an LCM LoRA.")] = None,
    prompt: Annotated[str, typer.Option(help="Default prompt of the bundle.")] = "",
    prompt_chunks: Annotated[int, typer.Option(metavar="N", help="Allow prompts of N times 75 tokens.")] = 1,
    attention: Annotated[
        str | None, typer.Option(metavar="low|low+|up|all", help="Layers that also attend to earlier frames.")
    ] = None,
    references: Annotated[
        int | None,
        typer.Option(metavar="1|2", help="Earlier frames they attend to: the last, and the first of a shot."),
    ] = None,
    cache_deep: Annotated[
        int | None,
        typer.Option(
            metavar="LAYERS", help="Split the UNet: its last 1 to 3 layers run for every frame (run --cache-deep N)."
        ),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SOURCE", help="A ControlNet (repeatable): run --control NAME."),
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SOURCE", help="A T2I-Adapter (repeatable).")
    ] = None,
    style_image: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SOURCE[:ENCODER]", help="An IP-Adapter: run --style-image NAME=PICTURE:SCALE."),
    ] = None,
    family: Annotated[str | None, typer.Option(help="Family of a single file that does not say it.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Tokenizer for a single file, which has none.")
    ] = None,
    check: Check = False,
    output: Folder = None,
) -> None:
    """A Stable Diffusion checkpoint: SD 1.5, SD 2.1, SD-Turbo, SDXL, SDXL-Turbo, LCM."""
    width, height = parse_size(size)
    if dtype not in ("fp16", "bf16", "fp32"):
        raise BadInput(f"--dtype {dtype}: expected fp16, bf16 or fp32")
    require("onnx", "diffusers", "transformers")
    targets = parse(to, gpu, dtype)
    from warpfuse.export.diffusion.attention import MOST_REFERENCES, parse_reach
    from warpfuse.export.diffusion.bundle import Request, export_checkpoint
    from warpfuse.export.diffusion.checkpoint import open_checkpoint
    from warpfuse.export.diffusion.control_files import parse_control
    from warpfuse.export.diffusion.embeddings import parse_embedding
    from warpfuse.export.diffusion.image_files import parse_style_image
    from warpfuse.export.diffusion.lora.merging import parse_lora
    from warpfuse.export.diffusion.quantized import parse_kind

    request = Request(
        size=(width, height),
        steps=steps,
        loras=[parse_lora(text) for text in lora or ()],
        live=lora_live,
        embeddings=[parse_embedding(text) for text in embedding or ()],
        vae=vae,
        dtype=cast(Literal["fp16", "bf16", "fp32"], dtype),
        solver=solver,
        clip_skip=clip_skip,
        prompt=prompt,
        chunks=prompt_chunks,
        controls=[
            *(parse_control(text, "controlnet") for text in control or ()),
            *(parse_control(text, "adapter") for text in adapter or ()),
        ],
        images=[parse_style_image(text) for text in style_image or ()],
        attention=parse_reach(attention, references),
        references=MOST_REFERENCES if references is None else references,
        deep=cache_deep,
        quantize=(kind := parse_kind(quantize, dtype, targets.names, calibrate)),
        frames=() if kind is None else frames_of(calibrate or str(CLIP), (width, height)),
        check=check,
        targets=targets,
    )
    opened = open_checkpoint(source, family=family, tokenizer=tokenizer, prediction=prediction, say=print)
    folder = output or Path(f"{opened.name}-{width}x{height}-{steps}")
    bundle = export_checkpoint(folder, opened, request, print)
    print(f"wrote {bundle.folder}: {opened.family.name}, {width}x{height}, {steps} steps, {dtype}, {opened.licence}")


def frames_of(source: str, size: tuple[int, int]) -> "list[Tensor]":
    """Frames to find the scales of a quantised network on: rgb [1, 3, H, W] in [0, 1], spread over a source.

    Raises SourceError, or BadInput for a source that is too short.
    """
    import torch

    from warpfuse.stages.sources import open_source

    video, frames = open_source(source, size, frames=_MOST_READ), []
    try:
        for number in range(_MOST_READ):
            if (frame := video.read()) is None:
                break
            if number % _APART == 0:
                frames.append(torch.from_numpy(frame.rgb.copy()).permute(2, 0, 1)[None].float() / 255)
    finally:
        video.close()
    if len(frames) < 2:
        raise BadInput(f"--calibrate {source}: its scales need more than {_APART} frames. Give a longer video")
    return frames


_MOST_READ, _APART = 120, 10


def export_map(
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="A network from a picture to a map of it.")],
    multiple: Annotated[
        int, typer.Option(min=1, max=256, help="Width and height are multiples of this, if it takes any size.")
    ] = 8,
    long_side: Annotated[
        int, typer.Option(min=16, max=8192, metavar="PX", help="Longer side it runs at, if it takes any size.")
    ] = 512,
    licence: Annotated[str, typer.Option(help="Licence of its weights.")] = "unknown",
    output: Folder = None,
) -> None:
    """A network from a picture to a map of it as a bundle: for --mask, or a control of kind network."""
    require("onnx", "onnxruntime")
    from warpfuse.export.map_bundle import export_map

    folder = output or Path(file.stem)
    bundle = export_map(folder, file, multiple=multiple, long_side=long_side, licence=licence)
    about = bundle.about
    size = f"{about.size[0]}x{about.size[1]}" if about.size else f"any size, run at {long_side} pixels at most"
    print(f"wrote {bundle.folder}: {size}, {about.channels} channel(s), licence {about.licence}")


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) in px, from "512x288". Raises BadInput."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX]\s*(\d{1,5})\s*", text)
    if match is None:
        raise BadInput(f"--size {text!r}: expected WIDTHxHEIGHT in pixels, as in 512x288")
    return int(match[1]), int(match[2])


def parse(to: str, gpu: str | None, dtype: str = "fp32") -> "Targets":
    """The targets of `--to` and `--gpu`. Raises BadInput, or BackendMissing if this machine cannot write them."""
    from warpfuse.export.targets import parse_targets

    return parse_targets(to, gpu, dtype)


def require(*modules: str) -> None:
    """Raise BadInput if a module cannot be imported, since its extra is not installed."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            raise BadInput(f"this export needs {module}: pip install 'warpfuse[cpu,export]'") from None
