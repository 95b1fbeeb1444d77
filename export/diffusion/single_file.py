"""A checkpoint in one .safetensors file, keys as in the original implementation."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..onnx_writing import ExportError
from . import published
from .checkpoint import Checkpoint
from .families import WORKING, family_of, refused
from .tokens import Tokenizer, read_tokenizer
from .weights import check_safetensors

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
    check_safetensors(path)
    family = family_in(path, family)
    parts = architecture or _architecture(family)
    scheduler = dict(published.SCHEDULERS[family])
    index = {"_class_name": published.pipeline(family), "text_encoder": ["transformers", "CLIPTextModel"]}
    unet_config = {"_class_name": "UNet2DConditionModel", **parts["unet"]}
    texts = [part for part in ("text_encoder", "text_encoder_2") if part in parts]
    with tempfile.TemporaryDirectory() as temporary:
        configs = Path(temporary)
        for part, config in parts.items():
            (configs / part).mkdir()
            (configs / part / "config.json").write_text(json.dumps(config))
        unet = _diffusers("UNet2DConditionModel", path, configs, "unet")
        vae = _diffusers("AutoencoderKL", path, configs, "vae")
        text = tuple(_text(path, configs, part) for part in texts)
    return Checkpoint(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("-._") or "checkpoint",
        source=path.name,
        licence="unknown",
        family=family_of(index, unet_config, scheduler),
        unet=unet,
        vae=vae,
        text=text,
        tokenizers=_tokenizers(tokenizer, len(texts)),
        scheduler=scheduler,
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
        fits = ("lcm",) if "model.diffusion_model.time_embed.cond_proj.weight" in names else ("sd15",)
    if asked is None and len(fits) > 1:
        raise ExportError(f"{path.name} may be {' or '.join(fits)}, and the file does not say. Add --family {fits[0]}")
    if asked is not None and asked not in fits:
        raise ExportError(f"{path.name} is {' or '.join(fits)} by its keys, not --family {asked}")
    return asked or fits[0]


def _architecture(family: str) -> dict[str, published.Config]:
    texts = published.text_configs(family)
    parts = {"unet": published.UNETS[family], "vae": published.VAE_XL if len(texts) == 2 else published.VAE}
    return {**parts, **dict(zip(("text_encoder", "text_encoder_2"), texts, strict=False))}


def _diffusers(kind: str, path: Path, configs: Path, part: str) -> nn.Module:
    import diffusers

    try:
        network: nn.Module = getattr(diffusers, kind).from_single_file(
            str(path), config=str(configs), subfolder=part, torch_dtype=torch.float32, local_files_only=True,
            low_cpu_mem_usage=False,
        )  # fmt: skip
    except Exception as error:  # its conversion raises whatever a missing key comes to
        raise _unfit(path, part, error) from error
    return network.eval().requires_grad_(False)


def _text(path: Path, configs: Path, part: str) -> nn.Module:
    import transformers
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
    from safetensors.torch import load_file

    kind: Any = transformers.CLIPTextModelWithProjection if part.endswith("2") else transformers.CLIPTextModel
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items() if _of_text(name)}
        convert: Any = create_diffusers_clip_model_from_ldm
        network: nn.Module = convert(
            kind, tensors, subfolder=part, config=str(configs), torch_dtype=torch.float32, local_files_only=True
        )
    except Exception as error:  # as above
        raise _unfit(path, part, error) from error
    return network.eval().requires_grad_(False)


def _of_text(name: str) -> bool:
    return name.startswith(("cond_stage_model.", "conditioner."))


def _unfit(path: Path, part: str, error: Exception) -> ExportError:
    return ExportError(f"{path.name}: its {part} does not fit: {' '.join(str(error).split())[:200]}")


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
