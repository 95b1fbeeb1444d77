"""Networks of ComfyUI with the interfaces of `warpfuse.comfy`."""

from collections.abc import Callable
from typing import Any

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from warpfuse.comfy.cross_frame import StreamCrossFrame
from warpfuse.comfy.latent_motion import Picture

Conditioned = tuple[Any, Any]
"""Positive and negative conditioning."""


def is_flow(model_sampling: Any) -> bool:
    """The model is a rectified flow: x = (1 - s) x0 + s n."""
    return isinstance(model_sampling, comfy.model_sampling.CONST)


def encode(vae: Any, rgb: Tensor) -> Tensor:
    """[1, 3, H, W] in [0, 1] -> latent, float32 on the host."""
    latent: Tensor = vae.encode(rgb.permute(0, 2, 3, 1))
    return latent.to("cpu", torch.float32)


def decode(vae: Any, latent: Tensor) -> Tensor:
    """Latent -> [1, 3, H, W], float32 on the host."""
    rgb: Tensor = vae.decode(latent)
    return rgb.to("cpu", torch.float32).permute(0, 3, 1, 2).contiguous()


def in_model_scale(vae: Any, model: Any) -> tuple[Picture, Picture]:
    """(decode, encode) for latents in the scale of a BaseModel."""
    return (
        lambda latent: decode(vae, model.process_latent_out(latent)).clamp(0, 1),
        lambda rgb: model.process_latent_in(encode(vae, rgb)),
    )


class FrameNetworks:
    """`VideoNetworks` with a MODEL, a VAE and conditioning of ComfyUI.

    conditioned  (frame) -> positive and negative conditioning, with that frame's ControlNet
    attention    cross-frame attention; None: none
    """

    def __init__(
        self,
        model: Any,
        vae: Any,
        conditioned: Callable[[int], Conditioned],
        sampler: Any,
        sigmas: Tensor,
        cfg: float,
        seed: int,
        attention: StreamCrossFrame | None,
    ) -> None:
        self._model = model if attention is None else model.clone()
        if attention is not None:
            self._model.set_model_attn1_patch(attention)
        self._vae = vae
        self._conditioned = conditioned
        self._sampler = sampler
        self._sigmas = sigmas
        self._cfg = cfg
        self._seed = seed
        self._attention = attention
        self.cells = spatial_cells(vae)

    def encode(self, rgb: Tensor) -> Tensor:
        """Pictures to latents, in the scale of the VAE."""
        return encode(self._vae, rgb)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents to pictures."""
        return decode(self._vae, latent)

    def sample(self, latent: Tensor, frame: int, cut: bool) -> Tensor:
        """Denoise one frame. The noise is the same for every frame."""
        if self._attention is not None:
            self._attention.begin(cut)
        latent = comfy.sample.fix_empty_latent_channels(self._model, latent)
        noise = comfy.sample.prepare_noise(latent, self._seed)
        sampled: Tensor = comfy.sample.sample_custom(
            self._model,
            noise,
            self._cfg,
            self._sampler,
            self._sigmas,
            *self._conditioned(frame),
            latent,
            disable_pbar=True,
            seed=self._seed,
        )
        return sampled.to("cpu", torch.float32)


def spatial_cells(vae: Any) -> int:
    """Side of a latent cell in pixels."""
    told = getattr(vae, "spacial_compression_encode", None)
    return int(told()) if told is not None else 8


def with_control(
    conditioning: tuple[Any, Any],
    control_net: Any,
    hint: Tensor,
    strength: float,
    window: tuple[float, float],
    vae: Any,
) -> tuple[Any, Any]:
    """Conditioning of one frame with a further ControlNet before those in it.

    hint  the control image, [1, 3, H, W] in [0, 1]
    """
    controls: dict[int, Any] = {}  # the same object for both, so that ComfyUI runs both in one batch

    def control_before(earlier: Any) -> Any:
        if id(earlier) not in controls:
            controls[id(earlier)] = control_net.copy().set_cond_hint(hint, strength, window, vae=vae)
            controls[id(earlier)].set_previous_controlnet(earlier)
        return controls[id(earlier)]

    def controlled(entries: Any) -> list[Any]:
        return [
            [embedding, {**more, "control": control_before(more.get("control")), "control_apply_to_uncond": False}]
            for embedding, more in entries
        ]

    return controlled(conditioning[0]), controlled(conditioning[1])
