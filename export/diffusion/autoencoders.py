"""The autoencoder an exported checkpoint is given: its own, the tiny one of its latent space, or one from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..onnx_writing import ExportError
from .checkpoint import Checkpoint
from .weights import check_safetensors

_TINY = {False: "madebyollin/taesd", True: "madebyollin/taesdxl"}


def choose_vae(checkpoint: Checkpoint, asked: str) -> nn.Module:
    """The autoencoder for "full" (the checkpoint's own), "taesd" (tiny, from the hub), or a folder or file.

    A folder is in the layout of diffusers; a .safetensors file has the keys of either of its two classes.
    Raises ExportError: none there, or one of another latent space.
    """
    vae: Any = checkpoint.vae
    if asked == "taesd":
        vae = _from_hub(_TINY[checkpoint.family.xl])
    elif asked != "full":
        vae = _from_path(Path(asked).expanduser(), checkpoint)
    channels, needed = vae.config.latent_channels, checkpoint.unet.config.in_channels  # type: ignore[union-attr]
    if channels != needed:
        raise ExportError(f"--vae {asked}: its latents have {channels} channels, the UNet takes {needed}")
    if vae.config.get("latents_mean") or vae.config.get("shift_factor"):
        raise ExportError(f"--vae {asked}: latents with a mean of their own cannot be exported, only a scale can")
    chosen: nn.Module = vae
    return chosen


def latent_space(vae: Any) -> dict[str, Any]:
    """channels, downscale and scale, as `bundle.json` has them."""
    blocks = vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"]
    return {
        "channels": vae.config.latent_channels,
        "downscale": 2 ** (len(blocks) - 1),
        "scale": float(vae.config.scaling_factor),
    }


def overflows(checkpoint: Checkpoint, vae: Any) -> bool:
    """Whether its activations pass what half precision holds: SDXL's own autoencoder, unless it was mended."""
    return checkpoint.family.xl and bool(vae.config.get("force_upcast", False))


def _from_hub(name: str) -> nn.Module:
    from huggingface_hub import snapshot_download

    from .folder import load_vae

    try:
        folder = snapshot_download(name, allow_patterns=["config.json", "diffusion_pytorch_model.safetensors"])
    except Exception as error:  # no connection has many types
        reason = " ".join(str(error).split())[:150]
        raise ExportError(f"--vae taesd: {name} cannot be had: {reason}. Give its folder: --vae DIR") from error
    return load_vae(Path(folder))


def _from_path(path: Path, checkpoint: Checkpoint) -> nn.Module:
    from diffusers import AutoencoderTiny
    from safetensors.torch import load_file

    from .folder import load_vae

    if path.is_dir():
        return load_vae(path)
    if not path.is_file() or path.suffix != ".safetensors":
        raise ExportError(f"--vae {path}: expected taesd, full, a folder of diffusers, or a .safetensors file")
    check_safetensors(path)
    weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    tiny = any(name.startswith("encoder.layers.") for name in weights)
    own: Any = checkpoint.vae
    tiny_class: Any = AutoencoderTiny
    try:
        network: Any = tiny_class() if tiny else type(own).from_config(own.config)
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"--vae {path} is no autoencoder of this latent space: {reason}") from None
    loaded: nn.Module = network.eval().requires_grad_(False)
    return loaded
