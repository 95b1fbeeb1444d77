"""The autoencoder of an exported checkpoint: its own, the tiny one of its latent space, or one from a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from warpfuse.engine.errors import one_line

from ..onnx_writing import ExportError
from .checkpoint import Checkpoint
from .weights import Tensors, filled, read_tensors

_TINY = {False: "madebyollin/taesd", True: "madebyollin/taesdxl"}
_PUBLISHED = {False: "stabilityai/sd-vae-ft-mse", True: "madebyollin/sdxl-vae-fp16-fix"}
_SCALE = 0.18215  # default, for configurations without a scale
_PREFIXES = ("first_stage_model.", "vae.")  # inside a whole checkpoint
# Old names in diffusers for the parts of the middle block's attention.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def choose_vae(checkpoint: Checkpoint, asked: str) -> nn.Module:
    """The autoencoder for "full" (the checkpoint's own), "taesd" (tiny, from the hub), or a folder, a file or a hub id.

    A folder has the layout of diffusers. A .safetensors file has the keys of diffusers or of the original
    implementation, with or without the rest of a checkpoint.
    Raises ExportError: no autoencoder, or one of another latent space.
    """
    vae: Any = checkpoint.vae
    if asked == "taesd":
        vae = _from_hub(_TINY[checkpoint.family.xl], asked)
    elif asked != "full":
        vae = _from_elsewhere(asked, checkpoint)
    if vae is None:
        raise ExportError(
            f"{checkpoint.source} has no autoencoder. Give it one: --vae {_PUBLISHED[checkpoint.family.xl]}, or a "
            "folder of diffusers, or a .safetensors file"
        )
    channels, needed = vae.config.latent_channels, checkpoint.unet.config.in_channels  # type: ignore[union-attr]
    if channels != needed:
        raise ExportError(f"--vae {asked}: its latents have {channels} channels, the UNet takes {needed}")
    scale, own = (config.get("scaling_factor") or _SCALE for config in (vae.config, checkpoint.vae_config))
    if hasattr(vae.config, "down_block_types") and abs(scale - own) > 1e-6:
        raise ExportError(
            f"--vae {asked}: its latents are scaled by {scale:g}, those of {checkpoint.family.name} by {own:g}: it is "
            f"of another family. One that fits: {_PUBLISHED[checkpoint.family.xl]}"
        )
    if vae.config.get("latents_mean") or vae.config.get("shift_factor"):
        raise ExportError(f"--vae {asked}: latents with a mean of their own cannot be exported, only a scale can")
    chosen: nn.Module = vae
    return chosen


def holds_vae(tensors: Tensors) -> bool:
    """A checkpoint contains tensors of an autoencoder, complete or not."""
    return any(name.startswith(_PREFIXES) for name in tensors)


def vae_of(tensors: Tensors, config: Mapping[str, Any], name: str) -> nn.Module:
    """The autoencoder in tensors with keys of diffusers or of the original implementation.

    config  configuration for an AutoencoderKL
    name    name of the file, for errors

    Raises ExportError: no autoencoder, an incomplete one, or one of another shape.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    prefix = next((prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in tensors)), "")
    own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    full: Any = AutoencoderKL
    tiny: Any = AutoencoderTiny
    original: Any = convert_ldm_vae_checkpoint
    if any(key.startswith("encoder.layers.") for key in own):
        return filled(tiny(), lambda: own, "autoencoder", name)
    first = own.get("decoder.conv_in.weight")
    if first is None:
        raise ExportError(f"{name} holds no autoencoder, tiny or full: it has no encoder.layers and no decoder.conv_in")
    if first.shape[1] != config["latent_channels"]:
        raise ExportError(
            f"{name}: its latents have {first.shape[1]} channels, the UNet takes {config['latent_channels']}"
        )
    network = full.from_config(dict(config))
    if any(key.startswith("encoder.down.") for key in own):
        return filled(network, lambda: original(dict(own), config=network.config), "vae", name)
    return filled(network, lambda: _with_new_attention(own, network), "vae", name)


def _with_new_attention(tensors: Tensors, network: nn.Module) -> Tensors:
    """Tensors with the names and shapes of the network. The oldest files have 1x1 convolutions in the attention."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    found = {}
    for key, tensor in tensors.items():
        name = re.sub(r"(?<=\.)(query|key|value|proj_attn)(?=\.)", lambda old: _OLD_ATTENTION[old[1]], key)
        fits = name in shapes and tensor.numel() == shapes[name].numel()
        found[name] = tensor.reshape(shapes[name]) if fits and ".attentions." in name else tensor
    return found


def latent_space(vae: Any) -> dict[str, Any]:
    """channels, downscale and scale, for `bundle.json`."""
    blocks = vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"]
    return {
        "channels": vae.config.latent_channels,
        "downscale": 2 ** (len(blocks) - 1),
        "scale": float(vae.config.scaling_factor),
    }


def overflows(checkpoint: Checkpoint, vae: Any) -> bool:
    """The activations of the autoencoder overflow half precision, as SDXL's own do, unless it was fixed."""
    return checkpoint.family.xl and bool(vae.config.get("force_upcast", False))


def _from_hub(name: str, asked: str) -> nn.Module:
    from huggingface_hub import snapshot_download

    from .folder import load_vae

    files = ["config.json", "diffusion_pytorch_model.safetensors"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*files, *(f"vae/{file}" for file in files)]))
    except Exception as error:  # no connection has many types
        reason = one_line(error, 150)
        raise ExportError(f"--vae {asked}: {name} cannot be had: {reason}. Give its folder: --vae DIR") from error
    return load_vae(folder / "vae" if (folder / "vae" / "config.json").is_file() else folder)


def _from_elsewhere(asked: str, checkpoint: Checkpoint) -> nn.Module:
    from .folder import load_vae

    path = Path(asked).expanduser()
    if path.is_dir():
        return load_vae(path / "vae" if (path / "vae" / "config.json").is_file() else path)
    if path.is_file() and path.suffix == ".safetensors":
        return vae_of(read_tensors(path), checkpoint.vae_config, f"--vae {path.name}")
    if path.suffix in (".pt", ".ckpt", ".bin", ".pth"):
        raise ExportError(f"--vae {path}: pickled files are refused, they can run code. Get the .safetensors of it")
    if path.is_file() or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", asked) or path.suffix == ".safetensors":
        raise ExportError(
            f"--vae {path}: expected taesd, full, a folder of diffusers, a .safetensors file, or a hub id as "
            f"{_PUBLISHED[checkpoint.family.xl]}"
        )
    return _from_hub(asked, asked)
