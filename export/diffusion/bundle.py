"""Exporting a checkpoint as a bundle, with its networks at one size. Errors leave nothing behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from warpfuse.engine.bundle import PLANS, Bundle
from warpfuse.engine.bundle_parts import LORA_INPUT, MOST_CHUNKS, AttentionMemory
from warpfuse.engine.bundle_writing import check_place, write_bundle

from ..disk import check_room, told_when_full
from ..network_files import Written, conclude
from ..onnx_writing import ExportError
from ..targets import ONNX_ALONE, Targets
from .attention import MOST_REFERENCES, Reach, RememberingUNet, attach_references, typical_references
from .autoencoders import choose_vae, latent_space, overflows
from .checkpoint import Checkpoint
from .control import Controls, controlled
from .control_files import ControlSource, open_controls
from .embeddings import Embedding, add_embeddings
from .image_files import ImageSource, open_images
from .image_prompt import Images, pictured
from .lora.live import LiveLoras, LiveNetwork, Scales, attach_loras, live_names
from .lora.merging import Lora, merge_lora
from .networks import UNet, VaeDecoder, VaeEncoder, text_network, time_ids
from .schedule import sampler_of
from .written import Precision, write_network

SMALLEST_PX, MOST_STEPS = 64, 4
_TOKENS = ("tokens", "tokens_2")


@dataclass(frozen=True, slots=True)
class Request:
    """Options of an export.

    size        (width, height) of the pictures, px
    steps       rows of the UNet's batch, and network calls of a frame
    live        the scales of the LoRAs stay inputs of the networks; else the LoRAs are merged
    embeddings  embeddings of textual inversion, for use in prompts
    vae         "full", "taesd", a path or a hub id
    solver      replaces that of the family
    clip_skip   layer of the text encoder whose state is used, counted as in `text_network`
    prompt      the default prompt
    chunks      number of chunks of 77 tokens of a prompt that the UNet takes
    controls    ControlNets and T2I-Adapters
    images      IP-Adapters
    attention   layers of the UNet that attend to tokens of earlier frames; None: no layer
    references  number of earlier frames for them
    check       write and measure all networks, print the table of errors, and only then refuse

    Raises ExportError for LoRAs that cannot be live together.
    """

    size: tuple[int, int]
    steps: int
    loras: Sequence[Lora] = ()
    live: bool = False
    embeddings: Sequence[Embedding] = ()
    vae: str = "full"
    dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
    solver: str | None = None
    clip_skip: int | None = None
    prompt: str = ""
    chunks: int = 1
    controls: Sequence[ControlSource] = ()
    images: Sequence[ImageSource] = ()
    attention: Reach | None = None
    references: int = MOST_REFERENCES
    check: bool = False
    targets: Targets = ONNX_ALONE

    def __post_init__(self) -> None:
        if self.live:
            live_names(self.loras)


def export_checkpoint(
    folder: Path, checkpoint: Checkpoint, request: Request, say: Callable[[str], None] = lambda line: None
) -> Bundle:
    """Write the bundle. `checkpoint` is changed: LoRAs are merged into its layers or added beside them.

    say  is called with a line for every network that is written

    Raises ExportError or BundleError: size or steps out of range, a LoRA that does not fit, a network that differs from
    torch. Errors leave nothing behind.
    """
    check_place(folder)
    width, height = request.size
    vae = choose_vae(checkpoint, request.vae)
    latent = latent_space(vae)
    multiple = latent["downscale"]
    if min(request.size) < SMALLEST_PX or width % multiple or height % multiple:
        raise ExportError(
            f"size {width}x{height}: expected multiples of {multiple} of {SMALLEST_PX} or more, as in 512x512"
        )
    if not 1 <= request.steps <= MOST_STEPS:
        raise ExportError(f"steps {request.steps}: expected 1 to {MOST_STEPS}")
    if not 1 <= request.chunks <= MOST_CHUNKS:
        raise ExportError(f"--prompt-chunks {request.chunks}: expected 1 to {MOST_CHUNKS}, each of 75 tokens")
    if not 1 <= request.references <= MOST_REFERENCES:
        raise ExportError(f"--references {request.references}: expected 1 to {MOST_REFERENCES}")
    text_network(checkpoint, request.clip_skip)  # a wrong clip_skip is refused before anything is changed
    controls = open_controls(checkpoint, request.controls, request.size, say)
    images = open_images(checkpoint, request.images)
    sampler = sampler_of(checkpoint.family, checkpoint.scheduler, request.solver)
    embedded = add_embeddings(checkpoint, request.embeddings, say)
    live = attach_loras(checkpoint, request.loras, say) if request.live else LiveLoras()
    for lora in () if request.live else request.loras:
        say(f"{lora.path.name}: merged into {merge_lora(checkpoint, lora, say)} layers at {lora.scale:g}")
    check_room(folder, _weights(checkpoint, vae, controls, images, request), request.targets)
    with told_when_full(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            written, attention = _write_all(Path(temporary), checkpoint, vae, live, controls, images, request, say)
            files: dict[str, bytes | Path] = {
                name: path for network in written.values() for name, path in network.files.items()
            }
            networks = list(written.values())
            plans = conclude(Path(temporary) / PLANS, networks, request.targets, say, request.check)
            tokenizers = _tokenizers(checkpoint, embedded)
            files |= {part["tokenizer"]: checkpoint.tokenizers[i].file for i, part in enumerate(tokenizers.values())}
            return write_bundle(
                folder,
                files,
                plans=plans,
                name=f"{checkpoint.name}-{width}x{height}-{request.steps}"[:100],
                kind="latent-diffusion",
                prediction=sampler.prediction,
                levels=sampler.levels,
                latent=latent,
                takes_source=False,
                sizes={"multiple": multiple, "minimum": min(request.size), "default_long_side": max(request.size)},
                size=request.size,
                batch=request.steps,
                steps=sampler.steps,
                solver=sampler.solver,
                text={
                    "inputs": tokenizers,
                    "chunks": request.chunks,
                    "default_prompt": request.prompt,
                    "zeros_for_none": checkpoint.zeros_for_none,
                    "time_ids": time_ids(width, height) if checkpoint.family.xl else None,
                },
                loras=live.about,
                attention=attention,
                controls=controls.about,
                images=images.about,
                networks={kind: network.path.name for kind, network in written.items()},
                licence=checkpoint.licence,
                source=_source(checkpoint, request),
            )


def _write_all(
    folder: Path,
    checkpoint: Checkpoint,
    vae: nn.Module,
    live: LiveLoras,
    controls: Controls,
    images: Images,
    request: Request,
    say: Callable[[str], None],
) -> tuple[dict[str, Written], AttentionMemory | None]:
    """Write all networks, each with the outputs of the previous ones as inputs. Returns them, and the UNet's memory of
    earlier frames. With `request.check` networks that differ too much are returned too."""
    written: dict[str, Written] = {}

    def write(kind: str, network: nn.Module, inputs: dict[str, Tensor], outputs: list[str], half: Precision) -> None:
        precision = _precision(request, half)
        program = "torch" in request.targets.names
        written[kind] = write_network(
            folder / f"{kind}.onnx", network.eval(), inputs, outputs, precision, measured=request.check, program=program
        )
        say(_line(kind, written[kind], request))

    def with_scales(network: nn.Module, scales: Scales | None, inputs: dict[str, Tensor], rows: int) -> nn.Module:
        if scales is None:
            return network
        inputs[LORA_INPUT] = live.typical(rows)
        return LiveNetwork(network, scales)

    width, height = request.size
    rgb = _smooth(1, 3, height, width)
    encoder, decoder = VaeEncoder(vae), VaeDecoder(vae)
    tokens = dict(zip(_TOKENS, (torch.tensor([t(request.prompt)]) for t in checkpoint.tokenizers), strict=False))
    text = with_scales(text_network(checkpoint, request.clip_skip), live.text, tokens, 1)
    with torch.no_grad():
        latent = encoder(rgb)
        told = text(*tokens.values())
    context, pooled = told if isinstance(told, tuple) else (told, None)
    of_vae = _of_vae(checkpoint, vae, request)
    write("text", text, tokens, ["context"] + (["pooled"] if pooled is not None else []), "half-weights")
    write("encoder", encoder, {"rgb": rgb}, ["latent"], of_vae)
    write("decoder", decoder, {"latent": latent}, ["rgb"], of_vae)
    ends = torch.float16 if request.dtype == "fp16" else torch.float32
    given = []
    for place, (name, encoder_of_map) in enumerate(controls.encoders(ends)):
        write(f"control_{place}", encoder_of_map, {"rgb": rgb}, [name], "half")
        with torch.no_grad():
            given.append(encoder_of_map(rgb))
    tokens_of: dict[str, Tensor] = {}
    for number, network in enumerate(images.encoders):
        seen, names = {"rgb": _smooth(1, 3, network.size, network.size)}, images.outputs(number)
        write(f"image_{number}", network, seen, names, "half-weights")
        with torch.no_grad():
            tokens_of |= zip(names, network(**seen), strict=True)
    rows = request.steps
    inputs = {
        "x": torch.randn(rows, *latent.shape[1:], generator=torch.Generator().manual_seed(0)),
        "timestep": torch.linspace(999.0, 249.75, rows),
        "context": context.repeat(rows, request.chunks, 1),
    }
    if pooled is not None:
        ids = torch.tensor([time_ids(width, height)])
        inputs |= {"pooled": pooled.repeat(rows, 1), "time_ids": ids.repeat(rows, 1)}
    inputs |= controls.typical(given, rows)
    inputs |= images.typical(tokens_of, rows)
    steered = controlled(UNet(checkpoint.unet), controls, request.size)
    shown = pictured(checkpoint.unet, steered, images, checkpoint.family.xl)
    unet = with_scales(shown, live.unet, inputs, rows)
    if request.attention is None:
        write("unet", unet, inputs, ["output"], _of_unet(checkpoint))
        return written, None
    layers = attach_references(checkpoint.unet, request.attention, unet, inputs)
    remembering = RememberingUNet(unet, layers)
    inputs |= typical_references(remembering, inputs, request.references, ends)
    write("unet", remembering, inputs, ["output", "kept"], _of_unet(checkpoint))
    memory = AttentionMemory(references=request.references, layers=layers.kept_layers)
    say(f"unet: {_told(memory, request)}")
    return written, memory


def _told(memory: AttentionMemory, request: Request) -> str:
    size = memory.numbers * (2 if request.dtype == "fp16" else 4) / 1e6
    return (
        f"attention {request.attention}, {len(memory.layers)} layers take {memory.references} references; a row keeps "
        f"{size:.1f} MB a call"
    )


def _precision(request: Request, half: Precision) -> Precision:
    """The precision `half`, which is for float16, changed to the dtype of the request."""
    if request.dtype == "fp32":
        return "single"
    bfloat: dict[Precision, Precision] = {
        "half": "bfloat", "half-with-single-products": "bfloat-with-single-products",
    }  # fmt: skip
    return bfloat.get(half, half) if request.dtype == "bf16" else half


def _of_vae(checkpoint: Checkpoint, vae: nn.Module, request: Request) -> Precision:
    # bfloat16 has the range of float32, so it does not overflow.
    return "half-weights" if overflows(checkpoint, vae) and request.dtype == "fp16" else "half"


def _weights(
    checkpoint: Checkpoint, vae: nn.Module, controls: Controls, images: Images, request: Request
) -> dict[str, tuple[int, int]]:
    """(number of parameters, bytes of each in the file) by name. ControlNets and keys of images are in the UNet's
    file."""
    modules = {"vae": [vae], **{f"text_{n}": [text] for n, text in enumerate(checkpoint.text)}}
    modules |= {"unet": [checkpoint.unet, *controls.of_form("controlnet")]}
    modules |= {f"adapter_{n}": [adapter] for n, adapter in enumerate(controls.of_form("adapter"))}
    modules |= {f"image_{n}": [network] for n, network in enumerate(images.encoders)}
    size = 4 if request.dtype == "fp32" else 2
    counts = {name: sum(p.numel() for module in those for p in module.parameters()) for name, those in modules.items()}
    counts["unet"] += images.added
    return {name: (count, size) for name, count in counts.items()}


def _of_unet(checkpoint: Checkpoint) -> Precision:
    config: Any = checkpoint.unet.config
    # Products in SD 2 overflow half precision, whatever its configuration says, unless factors are scaled before
    # (`half.py`). Of the small families only SD 2 has linear projections.
    second = config.get("use_linear_projection") and not checkpoint.family.xl
    return "half-with-single-products" if second or config.get("upcast_attention") else "half"


def _tokenizers(checkpoint: Checkpoint, embedded: Sequence[dict[str, tuple[int, ...]]]) -> dict[str, dict[str, Any]]:
    """The tokenizer of each input of the text network, for `bundle.json`."""
    texts: Sequence[Any] = checkpoint.text
    return {
        name: {
            "tokenizer": "tokenizer.json" if name == "tokens" else "tokenizer_2.json",
            "length": one.length,
            "start": one.start,
            "end": one.end,
            "pad": one.pad,
            "width": encoder.config.hidden_size,
            "embeddings": tokens,
        }
        for name, one, encoder, tokens in zip(_TOKENS, checkpoint.tokenizers, texts, embedded, strict=False)
    }


def _line(kind: str, one: Written, request: Request) -> str:
    verdict = "" if request.check else f", agrees with torch in float32 within {one.allowed:.3g}"
    rounded = "; checked with bfloat16 rounded in single precision" if one.computes.startswith("bfloat") else ""
    return f"{kind}: written, {one.computes}{verdict}{rounded}"


def _source(checkpoint: Checkpoint, request: Request) -> str:
    how = "live" if request.live else "at"
    words = "".join(f", embedding {one.path.name}" for one in request.embeddings)
    skip = "" if request.clip_skip is None else f", clip skip {request.clip_skip}"
    loras = "".join(f", LoRA {lora.path.name} {how} {lora.scale:g}" for lora in request.loras)
    seen = "" if request.attention is None else f", attention {request.attention} to {request.references}"
    vae = Path(request.vae).name
    steered = "".join(f", {one.form} {one.name} {_called(one.source)}" for one in request.controls)
    shown = "".join(f", style image {one.name} {_called(one.source)}" for one in request.images)
    made = f"autoencoder {vae}{skip}{seen}{steered}{shown}{words}{loras}"
    return f"{checkpoint.source} ({checkpoint.family.name}), {made}"


def _called(source: str) -> str:
    """A hub id as it is, a folder or file without its path, which is private."""
    path = Path(source).expanduser()
    return path.resolve().name if path.exists() else source


def _smooth(*shape: int) -> Tensor:
    """A smooth picture in [0,1] with some grain. Noise would be no typical input of an autoencoder."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(*shape[:2], 4, 4, generator=generator)
    scene = nn.functional.interpolate(coarse, shape[2:], mode="bicubic")
    return (scene + 0.02 * torch.randn(*shape, generator=generator)).clamp(0, 1)
