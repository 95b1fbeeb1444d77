"""Bundles of a small random checkpoint: without LoRAs, with two live LoRAs, and with the same two merged."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from support.random_checkpoint import write_random_checkpoint
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.lora.merging import Lora

SIZE, ROWS = (64, 64), 2
MERGED_AT = {"paint": 1.0, "line": -0.5}
DEFAULTS = {"paint": 0.75, "line": 0.0}


@dataclass(frozen=True)
class LoraBundles:
    """Folders of bundles in single precision, of the checkpoint, and the LoRA files by name."""

    source: Path
    files: dict[str, Path]
    base: Path
    live: Path
    merged: Path


def write(folder, family):
    """paint: kohya's spelling, alpha, every layer of UNet and text. line: PEFT's, another rank, linear layers."""
    source = write_random_checkpoint(folder / family, family)
    checkpoint = open_checkpoint(str(source))
    kinds = (nn.Linear, nn.Conv2d)
    paint, line = {}, {}
    texts = ("lora_te1", "lora_te2") if len(checkpoint.text) == 2 else ("lora_te",)
    for prefix, network in zip(("lora_unet", *texts), (checkpoint.unet, *checkpoint.text), strict=True):
        for name, layer in network.named_modules():
            if isinstance(layer, kinds):
                stem = f"{prefix}_{name.replace('.', '_')}"
                paint |= halves(stem, layer, 3, ("lora_down", "lora_up"))
                paint[f"{stem}.alpha"] = torch.tensor(1.5)
            if isinstance(layer, nn.Linear) and prefix == "lora_unet":
                line |= halves(f"unet.{name}", layer, 2, ("lora_A", "lora_B"))
    files = {"paint": folder / "paint.safetensors", "line": folder / "line.safetensors"}
    save_file(paint, files["paint"])
    save_file(line, files["line"])
    made = {
        "base": {},
        "live": {"loras": [Lora(files[name], DEFAULTS[name]) for name in files], "live": True},
        "merged": {"loras": [Lora(files[name], MERGED_AT[name]) for name in files]},
    }
    for name, changes in made.items():
        export(source, folder / name, **changes)
    return LoraBundles(source, files, *(folder / name for name in made))


def export(source, folder, **changes):
    request = Request(**{"size": SIZE, "steps": ROWS, "dtype": "fp32", "prompt": "ink", **changes})
    return export_checkpoint(folder, open_checkpoint(str(source)), request)


def halves(stem, layer, rank, names, size=0.3):
    """The tensors down and up with two names, in the shapes of files."""
    generator = torch.Generator().manual_seed(sum(stem.encode()))
    weight = layer.weight
    down = 0.2 * torch.randn(rank, *weight.shape[1:], generator=generator)
    up = size * torch.randn(weight.shape[0], rank, *(1,) * (weight.dim() - 2), generator=generator)
    return {f"{stem}.{names[0]}.weight": down, f"{stem}.{names[1]}.weight": up}
