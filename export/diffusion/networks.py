"""The networks of a checkpoint with the names and conventions of a bundle. They share the weights of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..onnx_writing import ExportError
from .checkpoint import Checkpoint

LCM_GUIDANCE = 8.5  # default guidance input of latent consistency models (Luo et al. 2023)


class UNet(nn.Module):
    """The UNet: noisy latent to prediction.

    Input    x        [K,4,h,w]   alpha x0 + sigma n
             timestep [K]         float32, fractions allowed
             context  [K,77 n,d]  the prompt, from n calls of `Text`
             pooled   [K,d2], time_ids [K,6]: for SDXL only
    Returns  output   [K,4,h,w]   the prediction, of the kind in the bundle's `prediction`
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        width = network.config.time_cond_proj_dim
        self.told: Tensor | None
        told = guidance_embedding(LCM_GUIDANCE - 1, width) if width else None
        self.register_buffer("told", told, persistent=False)

    def forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor | None = None,
        time_ids: Tensor | None = None, residuals: Mapping[str, Any] | None = None,
    ) -> Tensor:  # fmt: skip
        """One prediction a row. residuals: keyword arguments of diffusers' UNet for the residuals of controls."""
        added = None if pooled is None else {"text_embeds": pooled, "time_ids": time_ids}
        told = None if self.told is None else self.told.expand(x.shape[0], -1)
        output: Tensor = self.network(
            x, timestep, context, timestep_cond=told, added_cond_kwargs=added, return_dict=False, **(residuals or {})
        )[0]
        return output


class VaeEncoder(nn.Module):
    """rgb [1,3,H,W] in [0,1] -> latent [1,4,h,w]: the mode of the posterior, unscaled."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, rgb: Tensor) -> Tensor:
        """Picture to latent."""
        encoded = self.vae.encode(2 * rgb - 1, return_dict=False)[0]
        latent: Tensor = encoded.mode() if hasattr(encoded, "mode") and not isinstance(encoded, Tensor) else encoded
        return latent


class VaeDecoder(nn.Module):
    """latent [1,4,h,w], unscaled -> rgb [1,3,H,W] in [0,1]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        """Latent to picture."""
        rgb: Tensor = self.vae.decode(latent, return_dict=False)[0]
        return (rgb / 2 + 0.5).clamp(0, 1)


class Text(nn.Module):
    """tokens [1,77] int64 -> context [1,77,d]: the normalised state after a layer, which is counted from the last."""

    def __init__(self, encoder: Any, layer: int = 1) -> None:
        super().__init__()
        self.encoder, self.layer = encoder, layer

    def forward(self, tokens: Tensor) -> Tensor:
        """The context of a prompt."""
        if self.layer == 1:
            context: Tensor = self.encoder(tokens).last_hidden_state
            return context
        state = self.encoder(tokens, output_hidden_states=True).hidden_states[-self.layer]
        norm = next(one for name, one in self.encoder.named_modules() if name.endswith("final_layer_norm"))
        earlier: Tensor = norm(state)
        return earlier


class TwoTexts(nn.Module):
    """tokens, tokens_2 [1,77] int64 -> context [1,77,d], states after a layer of both encoders, and pooled [1,d2].

    layer  counted from the last; SDXL uses the last but one
    """

    def __init__(self, first: Any, second: Any, layer: int = 2) -> None:
        super().__init__()
        self.first, self.second, self.layer = first, second, layer

    def forward(self, tokens: Tensor, tokens_2: Tensor) -> tuple[Tensor, Tensor]:
        """The context and pooled vector of a prompt."""
        second = self.second(tokens_2, output_hidden_states=True)
        first = self.first(tokens, output_hidden_states=True)
        return torch.cat(
            (first.hidden_states[-self.layer], second.hidden_states[-self.layer]), dim=-1
        ), second.text_embeds


def text_network(checkpoint: Checkpoint, clip_skip: int | None = None) -> nn.Module:
    """The text encoder, or both in one network.

    clip_skip  layer whose state is used, counted from the last layer of the trained encoder, as in other programs;
               None: 1 for SD 1.5, 2 for SD 2.1 and SDXL

    Raises ExportError: no such layer. Checkpoints of SD 2.1 lack the last layer.
    """
    layers = min(int(config.num_hidden_layers) for config in _configs(checkpoint))
    left_out = 1 if checkpoint.family.name in ("sd21", "sd-turbo") else 0
    most = layers + left_out
    if clip_skip is not None and not 1 + left_out <= clip_skip <= most:
        raise ExportError(f"--clip-skip {clip_skip}: expected {1 + left_out} to {most} with {checkpoint.family.name}")
    if len(checkpoint.text) == 2:
        return TwoTexts(*checkpoint.text, layer=clip_skip or 2).eval()
    return Text(checkpoint.text[0], layer=(clip_skip or 1 + left_out) - left_out).eval()


def _configs(checkpoint: Checkpoint) -> list[Any]:
    return [encoder.config for encoder in checkpoint.text]


def time_ids(width: int, height: int) -> tuple[float, ...]:
    """SDXL's input on the picture: original size, crop offset, target size, each y before x. Nothing is cropped."""
    return (float(height), float(width), 0.0, 0.0, float(height), float(width))


def guidance_embedding(guidance: float, width: int) -> Tensor:
    """The guidance scale as sines and cosines, [1, width], for latent consistency models."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(10000.0)) / (half - 1)))
    angles = 1000.0 * guidance * frequencies[None]
    embedding = torch.cat((angles.sin(), angles.cos()), dim=1)
    return nn.functional.pad(embedding, (0, width - 2 * half))
