"""ControlNets and T2I-Adapters in the file of the UNet, with a scale for each row as an input.

    e_i = hint encoder_i(map_i)                                     once a frame
    (r_ij, m_i) = ControlNet_i(x, t, context, e_i)                  with every call
    skip_j += sum_i scale_i r_ij,      middle += sum_i scale_i m_i

A ControlNet (Zhang et al. 2023) encodes its map by a few convolutions that do not depend on the noise level. Here this
hint encoder is a network of its own. A T2I-Adapter (Mou et al. 2023) does not depend on the noise level at all. Its
features are added after the blocks of the encoder. At scale 0 both add zeros, and the result equals that of the UNet
without them bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from warpfuse.engine.bundle_parts import ADAPTER_SCALE, CONTROL_SCALE, FEATURES, HINT, Control

from ..onnx_writing import ExportError
from .networks import UNet

_LUMINANCE = (0.299, 0.587, 0.114)  # weights of red, green and blue in gray


class HintEncoder(nn.Module):
    """rgb [1, 3, H, W] in [0, 1], the map of a ControlNet -> hint [1, C, h, w], which is added to its first layer.

    dtype  of the hint
    """

    def __init__(self, net: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.embedding = net.controlnet_cond_embedding
        self._turned = net.config.controlnet_conditioning_channel_order == "bgr"
        self._dtype = dtype

    def forward(self, rgb: Tensor) -> Tensor:
        """The hint of a map."""
        hint: Tensor = self.embedding(rgb.flip(1) if self._turned else rgb)
        return hint.to(self._dtype)


class AdapterFeatures(nn.Module):
    """rgb [1, 3, H, W] in [0, 1], the map of a T2I-Adapter -> features [1, F], flattened and concatenated.

    dtype  of the features
    """

    def __init__(self, adapter: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.adapter = adapter
        self._gray = adapter.config.in_channels == 1
        self._dtype = dtype
        self.register_buffer("luminance", torch.tensor(_LUMINANCE).view(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """The features of a map."""
        features = self.each(rgb)
        return torch.cat([feature.flatten(1) for feature in features], 1).to(self._dtype)

    def each(self, rgb: Tensor) -> list[Tensor]:
        """Features for each block of the UNet's encoder, [1, c, h, w]; for SDXL the last is for the middle block."""
        luminance: Any = self.luminance
        features: list[Tensor] = self.adapter((rgb * luminance).sum(1, keepdim=True) if self._gray else rgb)
        return features


@dataclass(frozen=True, slots=True)
class Controls:
    """The opened controls for an export.

    about     their descriptions, for `bundle.json`
    networks  of each: a ControlNetModel or a T2IAdapter of diffusers, float32
    """

    about: tuple[Control, ...] = ()
    networks: tuple[Any, ...] = ()

    def of_form(self, form: str) -> list[Any]:
        """The networks of one form, in their order."""
        return [net for one, net in zip(self.about, self.networks, strict=True) if one.form == form]

    def encoders(self, dtype: torch.dtype) -> list[tuple[str, nn.Module]]:
        """(name of the output, network) of each control, for the part that runs once a frame. dtype: of the outputs."""
        return [
            (HINT, HintEncoder(net, dtype)) if one.form == "controlnet" else (FEATURES, AdapterFeatures(net, dtype))
            for one, net in zip(self.about, self.networks, strict=True)
        ]

    def typical(self, given: Sequence[Tensor], rows: int) -> dict[str, Tensor]:
        """Inputs of the UNet, with a different scale in every row. given: outputs of the encoders."""
        inputs: dict[str, Tensor] = {}
        for form, name, scale in (("controlnet", HINT, CONTROL_SCALE), ("adapter", FEATURES, ADAPTER_SCALE)):
            those = [tensor for one, tensor in zip(self.about, given, strict=True) if one.form == form]
            if those:
                one_row = torch.stack(those, 1)
                inputs[name] = one_row.expand(rows, *one_row.shape[1:]).clone()
                inputs[scale] = torch.linspace(1.0, 0.5, rows)[:, None].repeat(1, len(those))
        return inputs


class ControlledUNet(nn.Module):
    """A UNet with its controls.

    Inputs   those of the UNet; with ControlNets, hint [K, n, C, h, w] and control_scale [K, n]; with adapters, features
             [K, m, F] and adapter_scale [K, m]
    Returns  output [K, 4, h, w]

    shapes  (c, h, w) of the features of an adapter; all adapters have the same
    """

    def __init__(self, unet: UNet, nets: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.unet = unet
        self.nets = nn.ModuleList(nets)
        self._shapes = tuple(shapes)
        widest = max((shape[0] for shape in self._shapes), default=0)
        self.register_buffer("ones", torch.ones(widest, 1, 1, 1), persistent=False)
        for net in self.nets:
            _take_hints(net)

    def forward(self, *inputs: Tensor) -> Tensor:
        """One prediction a row."""
        own, residuals = list(inputs), dict[str, Any]()
        if self._shapes:
            features, scale = own[-2:]
            own = own[:-2]
            residuals["down_intrablock_additional_residuals"] = self._added(features, scale, own[0].dtype)
        if len(self.nets):
            hint, scale = own[-2:]
            own = own[:-2]
            down, middle = self._steered(own, hint, scale)
            residuals |= {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        output: Tensor = self.unet(*own, residuals=residuals)
        return output

    def _steered(self, own: Sequence[Tensor], hint: Tensor, scale: Tensor) -> tuple[list[Tensor], Tensor]:
        """The scaled residuals of the ControlNets for the skips of the encoder, and for the middle block."""
        x, timestep, context = own[:3]
        added = {"text_embeds": own[3], "time_ids": own[4]} if len(own) > 3 else None
        sums: list[Tensor] = []
        for number, net in enumerate(self.nets):
            down, middle = net(
                x, timestep, context, hint[:, number].to(x.dtype), added_cond_kwargs=added, return_dict=False
            )
            share = scale[:, number].to(x.dtype).view(-1, 1, 1, 1)
            scaled = [share * residual for residual in (*down, middle)]
            sums = [a + b for a, b in zip(sums, scaled, strict=True)] if sums else scaled
        return sums[:-1], sums[-1]

    def _added(self, features: Tensor, scale: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """The scaled features of the adapters for each block.

        Each passes a convolution with 1, which changes no bit. It makes ONNX Runtime store the features in the memory
        layout of the blocks, so that layers and sums stay fused. Otherwise they would be rounded differently, and a
        scale of 0 would not give exactly the result of the network without adapters.
        """
        summed = (features.to(dtype) * scale.to(dtype)[:, :, None]).sum(1)
        parts = torch.split(summed, [prod(shape) for shape in self._shapes], 1)
        ones: Any = self.ones
        return [
            conv2d(part.reshape(-1, *shape), ones[: shape[0]].to(dtype), groups=shape[0])
            for part, shape in zip(parts, self._shapes, strict=True)
        ]


def _take_hints(net: Any) -> None:
    """Make a ControlNet take hints instead of maps, in place."""
    net.controlnet_cond_embedding = nn.Identity()
    net.register_to_config(controlnet_conditioning_channel_order="rgb")


def controlled(unet: UNet, controls: Controls, size: tuple[int, int]) -> nn.Module:
    """The UNet with its controls, or without controls itself. Its ControlNets are changed to take hints.

    size  (width, height) of the maps

    Raises ExportError: adapters whose features differ in shape.
    """
    if not controls.about:
        return unet
    shapes = {tuple(feature_shapes(adapter, size)) for adapter in controls.of_form("adapter")}
    if len(shapes) > 1:
        raise ExportError("--adapter: the adapters give features of different shapes. Take those of one family")
    return ControlledUNet(unet, controls.of_form("controlnet"), next(iter(shapes), ()))


def feature_shapes(adapter: Any, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """(c, h, w) of each feature of a T2I-Adapter for maps of (width, height)."""
    with torch.no_grad():
        features = AdapterFeatures(adapter, torch.float32).each(torch.zeros(1, 3, size[1], size[0]))
    return [tuple(feature.shape[1:]) for feature in features]
