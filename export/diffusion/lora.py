"""A LoRA file: what it changes of a checkpoint, and merging it (Hu et al. 2021, eq. 3):

W' = W + scale (alpha / rank) up down
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..onnx_writing import ExportError
from .checkpoint import Checkpoint
from .lora_names import Layers, roles
from .weights import check_safetensors

_OTHER_KINDS = {"hada_": "LoHa", "lokr_": "LoKr", "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA"}


@dataclass(frozen=True, slots=True)
class Lora:
    """A file and how strongly it is taken."""

    path: Path
    scale: float = 1.0


def parse_lora(text: str) -> Lora:
    """FILE or FILE:SCALE. Raises ExportError: no such file."""
    match = re.fullmatch(r"(.+?):([+-]?\d*\.?\d+)", text)
    path, scale = (Path(match[1]), float(match[2])) if match else (Path(text), 1.0)
    if not path.expanduser().is_file():
        raise ExportError(f"--lora {text}: {path} is no file. Expected FILE.safetensors or FILE.safetensors:SCALE")
    return Lora(path.expanduser(), scale)


@dataclass(frozen=True, slots=True)
class Change:
    """What a LoRA does to one layer, at scale 1: W + up down.

    layer  an nn.Linear or nn.Conv2d
    text   whether it is of a text encoder, not of the UNet
    down   [rank, *shape of the layer's weight but the first axis], float32
    up     [outputs of the layer, rank], float32, times alpha / rank
    """

    layer: nn.Module
    text: bool
    down: Tensor
    up: Tensor


def merge_lora(checkpoint: Checkpoint, lora: Lora) -> int:
    """Add a LoRA to the weights of `checkpoint`, in place; the number of layers it changed.

    Raises ExportError as `read_lora` does, and then nothing is changed.
    """
    changes = read_lora(checkpoint, lora)
    for change in changes:
        weight: Any = change.layer.weight
        with torch.no_grad():
            weight.add_((change.up @ change.down.flatten(1)).reshape(weight.shape), alpha=lora.scale)
    return len(changes)


def read_lora(checkpoint: Checkpoint, lora: Lora) -> list[Change]:
    """What a LoRA changes of `checkpoint`, which is left as it is. Everything in the file has its place.

    Raises ExportError: pickled or torn, another kind of adapter, for another architecture.
    """
    tensors, alphas = _read(lora.path)
    unet: Any = checkpoint.unet
    per_block = unet.config.layers_per_block
    layers = Layers(checkpoint.unet, checkpoint.text, per_block if isinstance(per_block, int) else per_block[0])
    found, odd = roles(tensors)
    for key in odd:
        kind = next((kind for mark, kind in _OTHER_KINDS.items() if mark in key), None)
        raise ExportError(
            f"--lora {lora.path.name}: {key} is " + (f"of a {kind}, not of a LoRA" if kind else "no tensor of a LoRA")
        )
    if not found:
        raise ExportError(f"--lora {lora.path.name} holds no tensor")
    changes = []
    for stem, keys in found.items():
        layer = layers.find(stem)
        if layer is None:
            raise ExportError(
                f"--lora {lora.path.name}: {checkpoint.name} ({checkpoint.family.name}) has no layer {stem}. "
                "It was made for another architecture"
            )
        if not {"down", "up"} <= set(keys):
            raise ExportError(f"--lora {lora.path.name}: {stem} has no {'up' if 'down' in keys else 'down'} half")
        down, up = _fitted(layer, tensors[keys["down"]].float(), tensors[keys["up"]].float(), stem, lora)
        alpha = float(tensors[keys["alpha"]]) if "alpha" in keys else alphas.get(stem, alphas.get("", down.shape[0]))
        changes.append(Change(layer, layers.of_text(stem), down, up * (alpha / down.shape[0])))
    return changes


def _fitted(layer: nn.Module, down: Tensor, up: Tensor, stem: str, lora: Lora) -> tuple[Tensor, Tensor]:
    """Both halves in the shapes that `Change` has; a file may have 1x1 kernels for a linear layer, and the reverse."""
    weight: Any = layer.weight
    rank = down.shape[0]
    want_down, want_up = [rank, *weight.shape[1:]], [weight.shape[0], rank]
    fits_up = list(up.shape[:2]) == want_up and up[0, 0].numel() == 1
    fits_down = list(down.shape[:2]) == want_down[:2] and down[0, 0].numel() == weight[0, 0].numel()
    if min(down.dim(), up.dim()) < 2 or not (fits_up and fits_down):
        raise ExportError(
            f"--lora {lora.path.name}: {stem} is {list(up.shape)} x {list(down.shape)}, the layer is "
            f"{list(weight.shape)}. It was made for another architecture"
        )
    return down.reshape(want_down), up.flatten(1)


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, float]]:
    """The tensors, and alpha by stem where the file or adapter_config.json beside it tells; "" is for every layer."""
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        raise ExportError(f"--lora {path}: expected a .safetensors file; pickled ones are refused, they can run code")
    check_safetensors(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        metadata = file.metadata() or {}
    beside = path.parent / "adapter_config.json"
    try:
        if "lora_adapter_metadata" in metadata:
            return tensors, _alphas(json.loads(metadata["lora_adapter_metadata"]), tensors)
        if beside.is_file():
            return tensors, _alphas({"lora_alpha": json.loads(beside.read_text())["lora_alpha"]}, tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"--lora {path.name}: what it says of alpha cannot be read: {error!r}") from None
    return tensors, {}


def _alphas(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Of diffusers' flat metadata: "unet.lora_alpha", or "lora_alpha" of an adapter for one network."""
    found = {"": float(described["lora_alpha"])} if "lora_alpha" in described else {}
    for stem in roles(tensors)[0]:
        part = stem.partition(".")[0]
        if f"{part}.lora_alpha" in described:
            pattern = described.get(f"{part}.alpha_pattern") or {}
            layer = stem.partition(".")[2]
            found[stem] = float(pattern.get(layer, described[f"{part}.lora_alpha"]))
    return found
