"""Reading checkpoints in the layout of diffusers: a folder for each part, with config.json and safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ..onnx_writing import ExportError
from . import published
from .checkpoint import Checkpoint
from .families import Family, family_of
from .markers import predicting, told
from .tokens import read_tokenizer
from .weights import check_weights, load_diffusers, load_text


def read_folder(folder: Path, source: str, prediction: str | None, say: Callable[[str], None]) -> Checkpoint:
    """Read the checkpoint in a folder. Arguments and errors: see `open_checkpoint`."""
    index = read_json(folder / "model_index.json")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    unet = read_json(folder / "unet" / "config.json")
    if prediction is not None:
        own = scheduler.get("prediction_type", "epsilon")
        scheduler = predicting(scheduler, prediction)
        if own != scheduler["prediction_type"]:
            say(f"{source}: its scheduler says {own}; taken as {told(prediction)}, as --prediction says")
    family = family_of(index, unet, scheduler)
    text_parts = ("text_encoder", "text_encoder_2") if family.xl else ("text_encoder",)
    has_vae = (folder / "vae").is_dir()
    for part in ("unet", *(("vae",) if has_vae else ()), *text_parts):
        if not (folder / part / "config.json").is_file():
            raise ExportError(f"{source}: {part} is missing. Copy or download the checkpoint again, whole")
        check_weights(folder / part, source)
    called = source.partition("@")[0].rpartition("/")[2]
    return Checkpoint(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", called).lstrip("-._") or "checkpoint",
        source=source,
        licence=_licence(folder),
        family=family,
        unet=load_diffusers("UNet2DConditionModel", folder / "unet"),
        vae=load_vae(folder / "vae") if has_vae else None,
        vae_config=_vae_config(folder, family),
        text=tuple(load_text(folder / part, projected=part == "text_encoder_2") for part in text_parts),
        tokenizers=tuple(read_tokenizer(folder / part.replace("text_encoder", "tokenizer")) for part in text_parts),
        scheduler=scheduler,
        zeros_for_none=family.xl and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _vae_config(folder: Path, family: Family) -> dict[str, Any]:
    own = read_json(folder / "vae" / "config.json") if (folder / "vae").is_dir() else {}
    return own if own.get("_class_name") == "AutoencoderKL" else published.VAE_XL if family.xl else published.VAE


def load_vae(folder: Path) -> nn.Module:
    """Load the autoencoder in a folder with config.json, full or tiny. Raises ExportError."""
    kind = str(read_json(folder / "config.json").get("_class_name", "AutoencoderKL"))
    if kind not in ("AutoencoderKL", "AutoencoderTiny"):
        raise ExportError(f"{folder}: autoencoder {kind} cannot be exported: AutoencoderKL or AutoencoderTiny")
    return load_diffusers(kind, folder)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ExportError: missing, or no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}. Is it a checkpoint in the layout of diffusers, whole?") from None
    except ValueError as error:
        raise ExportError(f"{path} is torn: {error}. Copy or download the checkpoint again") from None
    if not isinstance(value, dict):
        raise ExportError(f"{path} holds no JSON object. Copy or download the checkpoint again")
    return value


def _licence(folder: Path) -> str:
    """The licence in the model card; "unknown" without one."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    match = re.search(r"^license:\s*(\S+)\s*$", text, re.MULTILINE)
    return match[1] if match else "unknown"
