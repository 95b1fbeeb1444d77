"""Reading checkpoints in a single .safetensors file, with keys of the original implementation.

Diffusers' `from_single_file` is not used, since it fetches the architecture from the hub, and a file has to be readable
without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from warpfuse.engine.errors import one_line

from ..onnx_writing import ExportError
from . import published
from .autoencoders import holds_vae, vae_of
from .checkpoint import Checkpoint
from .families import family_of
from .markers import GUIDED, UNET, family_in, markers_of, predicting, prediction_in
from .tokens import Tokenizer, read_tokenizer
from .weights import Tensors, check_safetensors, filled, read_tensors

_TOKENIZER = "openai/clip-vit-large-patch14"  # for every family; SDXL's second pads with another token
_TEXT = re.compile(r"^((?:cond_stage_model|conditioner\.embedders\.0)\.transformer\.)(?!text_model\.)")


def read_single_file(
    path: Path,
    family: str | None,
    tokenizer: Path | None,
    architecture: dict[str, published.Config] | None = None,
    prediction: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Checkpoint:
    """Read the checkpoint in a file, with the published architecture of its family.

    architecture  configurations instead of the published ones, by part: "unet", "vae", "text_encoder", "text_encoder_2"

    Other arguments and errors: see `open_checkpoint`.
    """
    check_safetensors(path)
    markers = markers_of(path)
    family = family_in(markers, family)
    parts = architecture or _architecture(family)
    prediction = prediction_in(markers, family, prediction, say)
    scheduler = predicting(published.SCHEDULERS[family], prediction)
    index = {"_class_name": published.pipeline(family), "text_encoder": ["transformers", "CLIPTextModel"]}
    unet_config = {"_class_name": "UNet2DConditionModel", **parts["unet"]}
    texts = [part for part in ("text_encoder", "text_encoder_2") if part in parts]
    tensors = _as_now(read_tensors(path))
    if twins := sum(name.startswith("model_ema.") for name in tensors):
        say(f"{path.name}: left out {twins} tensors of averaged weights (model_ema); the UNet is its own {UNET}*")
    kind = family_of(index, unet_config, scheduler)
    return Checkpoint(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("-._") or "checkpoint",
        source=path.name,
        licence="unknown",
        family=kind,
        unet=_unet(parts["unet"], tensors, path),
        vae=vae_of(tensors, parts["vae"], path.name) if holds_vae(tensors) else None,
        vae_config=parts["vae"],
        text=tuple(_text(part, parts[part], tensors, path) for part in texts),
        tokenizers=_tokenizers(tokenizer, len(texts)),
        scheduler=scheduler,
        zeros_for_none=kind.xl,
    )


def _as_now(tensors: Tensors) -> Tensors:
    """Tensors with present keys. In files before transformers 4 the text encoder had no "text_model"."""
    return {_TEXT.sub(r"\1text_model.", name): tensor for name, tensor in tensors.items()}


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
        if GUIDED in tensors:
            state["time_embedding.cond_proj.weight"] = tensors[GUIDED]
        return state

    return filled(network, convert, "unet", path.name)


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

    return filled(network, convert, part, path.name)


def _untyped(function: Any) -> Any:
    return function


def _tokenizers(folder: Path | None, count: int) -> tuple[Tokenizer, ...]:
    """The tokenizers of a file, which does not contain them. All are CLIP's; the second of two pads with "!"."""
    folder = folder or _from_hub(_TOKENIZER)
    return tuple(read_tokenizer(folder, pad) for pad in (None, "!")[:count])


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, allow_patterns=["vocab.json", "merges.txt", "*tokenizer*.json"])
    except Exception as error:  # no connection has many types
        reason = one_line(error, 150)
        raise ExportError(
            f"a single file holds no tokenizer, and that of {name} cannot be had: {reason}. Give a folder with its "
            "vocab.json and merges.txt: --tokenizer DIR"
        ) from error
    return Path(folder)
