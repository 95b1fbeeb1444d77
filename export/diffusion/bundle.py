"""Exporting a checkpoint as a bundle, with its networks at one size. Errors leave nothing behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from warpfuse.engine.bundle import PLANS, Bundle
from warpfuse.engine.bundle_writing import check_place, write_bundle

from ..disk import check_room, told_when_full
from ..network_files import conclude
from .autoencoders import choose_vae, latent_space
from .bundle_networks import TOKENS, BundleModules, NetworkWriter
from .checkpoint import Checkpoint
from .control_files import open_controls
from .deep import DeepSplit
from .embeddings import add_embeddings
from .image_files import open_images
from .lora.live import LiveLoras, attach_loras
from .lora.merging import merge_lora
from .networks import text_network, time_ids
from .request import Request, check_limits
from .schedule import Sampler, sampler_of

__all__ = ["Request", "export_checkpoint"]


def export_checkpoint(
    folder: Path, checkpoint: Checkpoint, request: Request, say: Callable[[str], None] = lambda line: None
) -> Bundle:
    """Write the bundle. `checkpoint` is changed: LoRAs are merged into its layers or added beside them.

    say  is called with a line for every network that is written

    Raises ExportError or BundleError: size or steps out of range, a LoRA that does not fit, a network that differs from
    torch. Errors leave nothing behind.
    """
    check_place(folder)
    vae = choose_vae(checkpoint, request.vae)
    check_limits(request, latent_space(vae)["downscale"])
    text_network(checkpoint, request.clip_skip)  # a wrong clip_skip is refused before anything is changed
    controls = open_controls(checkpoint, request.controls, request.size, say)
    images = open_images(checkpoint, request.images)
    split = None if request.deep is None else DeepSplit(checkpoint.unet, request.deep)
    sampler = sampler_of(checkpoint.family, checkpoint.scheduler, request.solver)
    embedded = add_embeddings(checkpoint, request.embeddings, say)
    live = attach_loras(checkpoint, request.loras, say) if request.live else LiveLoras()
    for lora in () if request.live else request.loras:
        say(f"{lora.path.name}: merged into {merge_lora(checkpoint, lora, say)} layers at {lora.scale:g}")
    parts = BundleModules(checkpoint, vae, live, controls, images, split)
    check_room(folder, parts.weights(4 if request.dtype == "fp32" else 2), request.targets)
    with told_when_full(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            writer = NetworkWriter(Path(temporary), parts, request, sampler, say)
            attention = writer.write_all()
            written = writer.written
            plans = conclude(Path(temporary) / PLANS, list(written.values()), request.targets, say, request.check)
            tokenizers = _tokenizers(checkpoint, embedded)
            files: dict[str, bytes | Path] = {
                name: path for network in written.values() for name, path in network.files.items()
            }
            files |= {part["tokenizer"]: checkpoint.tokenizers[i].file for i, part in enumerate(tokenizers.values())}
            networks = {kind: network.path.name for kind, network in written.items()}
            description = _description(parts, request, sampler, tokenizers)
            return write_bundle(folder, files, plans=plans, attention=attention, networks=networks, **description)


def _description(
    parts: BundleModules, request: Request, sampler: Sampler, tokenizers: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The fields of `bundle.json` that do not depend on the written files."""
    checkpoint, latent, (width, height) = parts.checkpoint, latent_space(parts.vae), request.size
    multiple = latent["downscale"]
    return {
        "name": f"{checkpoint.name}-{width}x{height}-{request.steps}"[:100],
        "kind": "latent-diffusion",
        "prediction": sampler.prediction,
        "levels": sampler.levels,
        "latent": latent,
        "takes_source": False,
        "sizes": {"multiple": multiple, "minimum": min(request.size), "default_long_side": max(request.size)},
        "size": request.size,
        "batch": request.steps,
        "steps": sampler.steps,
        "solver": sampler.solver,
        "text": {
            "inputs": tokenizers,
            "chunks": request.chunks,
            "default_prompt": request.prompt,
            "zeros_for_none": checkpoint.zeros_for_none,
            "time_ids": time_ids(width, height) if checkpoint.family.xl else None,
        },
        "loras": parts.live.about,
        "controls": parts.controls.about,
        "images": parts.images.about,
        "licence": checkpoint.licence,
        "source": _source(checkpoint, request),
    }


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
        for name, one, encoder, tokens in zip(TOKENS, checkpoint.tokenizers, texts, embedded, strict=False)
    }


def _source(checkpoint: Checkpoint, request: Request) -> str:
    how = "live" if request.live else "at"
    words = "".join(f", embedding {one.path.name}" for one in request.embeddings)
    skip = "" if request.clip_skip is None else f", clip skip {request.clip_skip}"
    loras = "".join(f", LoRA {lora.path.name} {how} {lora.scale:g}" for lora in request.loras)
    seen = "" if request.attention is None else f", attention {request.attention} to {request.references}"
    split = "" if request.deep is None else f", deep part apart from {request.deep} layers"
    rounded = "" if request.quantize is None else f", UNet in {request.quantize}"
    vae = Path(request.vae).name
    steered = "".join(f", {one.form} {one.name} {_called(one.source)}" for one in request.controls)
    shown = "".join(f", style image {one.name} {_called(one.source)}" for one in request.images)
    made = f"autoencoder {vae}{skip}{seen}{split}{rounded}{steered}{shown}{words}{loras}"
    return f"{checkpoint.source} ({checkpoint.family.name}), {made}"


def _called(source: str) -> str:
    """A hub id as it is, a folder or file without its path, which is private."""
    path = Path(source).expanduser()
    return path.resolve().name if path.exists() else source
