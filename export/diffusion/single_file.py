"""A checkpoint in one .safetensors file, keys as in the original implementation."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..onnx_writing import ExportError
from . import published
from .checkpoint import Checkpoint
from .families import WORKING, family_of, refused
from .tokens import Tokenizer, read_tokenizer
from .weights import check_safetensors

Tensors = dict[str, Tensor]

_GUIDED = "model.diffusion_model.time_embed.cond_proj.weight"  # what a latent consistency model has more than others
_TOKENIZER = "openai/clip-vit-large-patch14"  # of every family; the second of SDXL pads with another token
# One key of each text encoder, and the families that have it.
_MARKS = {
    "conditioner.embedders.1.model.ln_final.weight": ("sdxl", "sdxl-turbo"),
    "cond_stage_model.model.ln_final.weight": ("sd21", "sd-turbo"),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": ("sd15", "lcm"),
}


def read_single_file(
    path: Path,
    family: str | None,
    tokenizer: Path | None,
    architecture: dict[str, published.Config] | None = None,
) -> Checkpoint:
    """The checkpoint of a file, with the published architecture of its family.

    architecture  part ("unet", "vae", "text_encoder", "text_encoder_2") -> configuration, another than the published

    Raises ExportError as `open_checkpoint`.
    """
    from safetensors.torch import load_file

    check_safetensors(path)
    family = family_in(path, family)
    parts = architecture or _architecture(family)
    scheduler = dict(published.SCHEDULERS[family])
    index = {"_class_name": published.pipeline(family), "text_encoder": ["transformers", "CLIPTextModel"]}
    unet_config = {"_class_name": "UNet2DConditionModel", **parts["unet"]}
    texts = [part for part in ("text_encoder", "text_encoder_2") if part in parts]
    tensors = load_file(path)
    kind = family_of(index, unet_config, scheduler)
    return Checkpoint(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("-._") or "checkpoint",
        source=path.name,
        licence="unknown",
        family=kind,
        unet=_unet(parts["unet"], tensors, path),
        vae=_vae(parts["vae"], tensors, path),
        text=tuple(_text(part, parts[part], tensors, path) for part in texts),
        tokenizers=_tokenizers(tokenizer, len(texts)),
        scheduler=scheduler,
        zeros_for_none=kind.xl,
    )


def family_in(path: Path, asked: str | None) -> str:
    """The family of a file, by the keys in it and, where they fit several, by what was asked. Raises ExportError."""
    from safetensors import safe_open

    if asked is not None and asked not in WORKING:
        raise refused(f"--family {asked}")
    with safe_open(path, "pt") as tensors:
        names = set(tensors.keys())
    if not any(name.startswith("model.diffusion_model.") for name in names):
        raise refused(f"{path.name}, which holds no UNet of Stable Diffusion,")
    fits: tuple[str, ...] | None = next((families for mark, families in _MARKS.items() if mark in names), None)
    if fits is None:
        raise ExportError(
            f"{path.name}: text encoder is missing: the file holds none of {', '.join(WORKING)}'s. Take a whole one"
        )
    if fits == ("sd15", "lcm"):
        fits = ("lcm",) if _GUIDED in names else ("sd15",)
    if asked is None and len(fits) > 1:
        raise ExportError(f"{path.name} may be {' or '.join(fits)}, and the file does not say. Add --family {fits[0]}")
    if asked is not None and asked not in fits:
        raise ExportError(f"{path.name} is {' or '.join(fits)} by its keys, not --family {asked}")
    return asked or fits[0]


def _architecture(family: str) -> dict[str, published.Config]:
    texts = published.text_configs(family)
    parts = {"unet": published.UNETS[family], "vae": published.VAE_XL if len(texts) == 2 else published.VAE}
    return {**parts, **dict(zip(("text_encoder", "text_encoder_2"), texts, strict=False))}


def _unet(config: published.Config, tensors: Tensors, path: Path) -> nn.Module:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    network_class: Any = UNet2DConditionModel
    network = network_class(**config)

    def convert() -> Tensors:
        state: Tensors = _untyped(convert_ldm_unet_checkpoint)(dict(tensors), config=network.config)
        if _GUIDED in tensors:
            state["time_embedding.cond_proj.weight"] = tensors[_GUIDED]
        return state

    return _filled(network, convert, "unet", path)


def _vae(config: published.Config, tensors: Tensors, path: Path) -> nn.Module:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    network_class: Any = AutoencoderKL
    network = network_class(**config)
    convert = _untyped(convert_ldm_vae_checkpoint)
    return _filled(network, lambda: convert(dict(tensors), config=network.config), "vae", path)


def _text(part: str, config: published.Config, tensors: Tensors, path: Path) -> nn.Module:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind: Any = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
    network = kind(CLIPTextConfig(**config))
    prefix = "conditioner.embedders.1." if part == "text_encoder_2" else "conditioner.embedders.0."
    own = {name: tensor for name, tensor in tensors.items() if name.startswith((prefix, "cond_stage_model."))}
    open_clip = next((name.partition("ln_final")[0] for name in own if name.endswith(".ln_final.weight")), None)

    def convert() -> Tensors:
        if open_clip is not None:
            state: Tensors = _untyped(convert_open_clip_checkpoint)(network, own, prefix=open_clip)
        else:
            state = _untyped(convert_ldm_clip_checkpoint)(own)
        if hasattr(network, "text_model"):
            return state
        return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}

    return _filled(network, convert, part, path)


def _filled(network: Any, convert: Callable[[], Tensors], part: str, path: Path) -> nn.Module:
    """The network with every tensor it has. What a file holds beyond that (a last layer nobody reads) is left out."""
    try:
        missing, _ = network.load_state_dict(convert(), strict=False)
    except (KeyError, IndexError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"{path.name}: its {part} does not fit: {reason}") from None
    if missing:
        raise ExportError(f"{path.name}: its {part} lacks {len(missing)} tensors, {missing[0]} for one")
    filled: nn.Module = network.float().eval().requires_grad_(False)
    return filled


def _untyped(function: Any) -> Any:
    return function


def _tokenizers(folder: Path | None, count: int) -> tuple[Tokenizer, ...]:
    """The tokenizers of a file, which holds none: CLIP's for every text encoder; the second of two pads with "!"."""
    folder = folder or _from_hub(_TOKENIZER)
    return tuple(read_tokenizer(folder, pad) for pad in (None, "!")[:count])


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, allow_patterns=["vocab.json", "merges.txt", "*tokenizer*.json"])
    except Exception as error:  # no connection has many types
        reason = " ".join(str(error).split())[:150]
        raise ExportError(
            f"a single file holds no tokenizer, and that of {name} cannot be had: {reason}. Give a folder with its "
            "vocab.json and merges.txt: --tokenizer DIR"
        ) from error
    return Path(folder)
