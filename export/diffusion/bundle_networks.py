"""Writing all networks of a bundle, each with the outputs of the previous ones as inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from warpfuse.engine.bundle_parts import LORA_INPUT, AttentionMemory

from ..network_files import Written
from .attention import RememberingUNet, attach_references, typical_references
from .autoencoders import latent_space, overflows
from .checkpoint import Checkpoint
from .control import Controls, controlled
from .deep import SHALLOW, DeepSplit
from .image_prompt import Images, pictured
from .lora.live import LiveLoras, LiveNetwork, Scales
from .networks import UNet, VaeDecoder, VaeEncoder, text_network, time_ids
from .quantized import Quantization, alphas_cumprod_of, check_fidelity, clean, typical
from .request import Request
from .schedule import Sampler
from .written import Precision, write_network

TOKENS = ("tokens", "tokens_2")
"""Inputs of the text network, one for each text encoder."""


@dataclass(frozen=True, slots=True)
class BundleModules:
    """Everything from which the networks of a bundle are made."""

    checkpoint: Checkpoint
    vae: nn.Module
    live: LiveLoras
    controls: Controls
    images: Images
    split: DeepSplit | None = None

    def weights(self, number_bytes: int) -> dict[str, tuple[int, int]]:
        """(number of parameters, bytes of each in the file) by name. ControlNets and keys of images are in the UNet's
        file."""
        modules = {"vae": [self.vae], **{f"text_{n}": [text] for n, text in enumerate(self.checkpoint.text)}}
        modules |= {"unet": [self.checkpoint.unet, *self.controls.of_form("controlnet")]}
        modules |= {f"adapter_{n}": [adapter] for n, adapter in enumerate(self.controls.of_form("adapter"))}
        modules |= {f"image_{n}": [network] for n, network in enumerate(self.images.encoders)}
        counts = {
            name: sum(p.numel() for module in those for p in module.parameters()) for name, those in modules.items()
        }
        counts["unet"] += self.images.added
        if self.split is not None:
            counts[SHALLOW] = counts["unet"] - self.split.unused
        return {name: (count, number_bytes) for name, count in counts.items()}


class NetworkWriter:
    """Writes the networks of a bundle into a folder. One use.

    written  the networks so far, by kind. With `request.check` also those that differ too much from torch
    say      is called with a line for every network
    """

    def __init__(
        self, folder: Path, parts: BundleModules, request: Request, sampler: Sampler, say: Callable[[str], None]
    ) -> None:
        self.written: dict[str, Written] = {}
        self._folder = folder
        self._parts = parts
        self._request = request
        self._sampler = sampler
        self._say = say
        self._ends = torch.float16 if request.dtype == "fp16" else torch.float32  # dtype of hints and tokens

    def write_all(self) -> AttentionMemory | None:
        """Write all networks. Returns the UNet's memory of earlier frames. Raises ExportError."""
        width, height = self._request.size
        rgb = _smooth(1, 3, height, width)
        context, pooled = self._write_text()
        latent = self._write_autoencoder(rgb)
        rows = self._request.steps
        inputs = {
            "x": torch.randn(rows, *latent.shape[1:], generator=torch.Generator().manual_seed(0)),
            "timestep": torch.linspace(999.0, 249.75, rows),
            "context": context.repeat(rows, self._request.chunks, 1),
        }
        if pooled is not None:
            ids = torch.tensor([time_ids(width, height)])
            inputs |= {"pooled": pooled.repeat(rows, 1), "time_ids": ids.repeat(rows, 1)}
        inputs |= self._parts.controls.typical(self._write_control_encoders(rgb), rows)
        inputs |= self._parts.images.typical(self._write_image_encoders(), rows)
        return self._write_unet(inputs)

    def _write_text(self) -> tuple[Tensor, Tensor | None]:
        """Write the text network. Returns context and pooled vector of the default prompt."""
        checkpoint = self._parts.checkpoint
        prompts = (torch.tensor([tokenizer(self._request.prompt)]) for tokenizer in checkpoint.tokenizers)
        tokens = dict(zip(TOKENS, prompts, strict=False))
        text = text_network(checkpoint, self._request.clip_skip)
        text = self._with_scales(text, self._parts.live.text, tokens, 1)
        with torch.no_grad():
            encoded = text(*tokens.values())
        context, pooled = encoded if isinstance(encoded, tuple) else (encoded, None)
        self._write("text", text, tokens, ["context"] + (["pooled"] if pooled is not None else []), "half-weights")
        return context, pooled

    def _write_autoencoder(self, rgb: Tensor) -> Tensor:
        """Write encoder and decoder. Returns the latent of `rgb`."""
        encoder, decoder = VaeEncoder(self._parts.vae), VaeDecoder(self._parts.vae)
        # bfloat16 has the range of float32, so it does not overflow.
        overflowing = overflows(self._parts.checkpoint, self._parts.vae) and self._request.dtype == "fp16"
        precision: Precision = "half-weights" if overflowing else "half"
        with torch.no_grad():
            latent: Tensor = encoder(rgb)
        self._write("encoder", encoder, {"rgb": rgb}, ["latent"], precision)
        self._write("decoder", decoder, {"latent": latent}, ["rgb"], precision)
        return latent

    def _write_control_encoders(self, rgb: Tensor) -> list[Tensor]:
        """Write the networks of the controls that run once a frame. Returns their outputs for `rgb`."""
        outputs = []
        for place, (name, encoder) in enumerate(self._parts.controls.encoders(self._ends)):
            self._write(f"control_{place}", encoder, {"rgb": rgb}, [name], "half")
            with torch.no_grad():
                outputs.append(encoder(rgb))
        return outputs

    def _write_image_encoders(self) -> dict[str, Tensor]:
        """Write the networks of the style images. Returns their outputs for a picture, by name."""
        outputs: dict[str, Tensor] = {}
        for number, network in enumerate(self._parts.images.encoders):
            seen, names = {"rgb": _smooth(1, 3, network.size, network.size)}, self._parts.images.outputs(number)
            self._write(f"image_{number}", network, seen, names, "half-weights")
            with torch.no_grad():
                outputs |= zip(names, network(**seen), strict=True)
        return outputs

    def _write_unet(self, inputs: dict[str, Tensor]) -> AttentionMemory | None:
        """Write the UNet with everything attached to it. `inputs` gets those of LoRAs and references added."""
        checkpoint, request = self._parts.checkpoint, self._request
        steered = controlled(UNet(checkpoint.unet), self._parts.controls, request.size)
        shown = pictured(checkpoint.unet, steered, self._parts.images, checkpoint.family.xl)
        unet = self._with_scales(shown, self._parts.live.unet, inputs, request.steps)
        if self._parts.split is not None:
            self._write_split(unet, self._parts.split, inputs)
            return None
        if request.attention is None:
            self._write("unet", unet, inputs, ["output"], _of_unet(checkpoint))
            return None
        layers = attach_references(checkpoint.unet, request.attention, unet, inputs)
        remembering = RememberingUNet(unet, layers)
        inputs |= typical_references(remembering, inputs, request.references, self._ends)
        self._write("unet", remembering, inputs, ["output", "kept"], _of_unet(checkpoint))
        memory = AttentionMemory(references=request.references, layers=layers.kept_layers)
        self._say(f"unet: {_told(memory, request)}")
        return memory

    def _write_split(self, unet: nn.Module, split: DeepSplit, inputs: dict[str, Tensor]) -> None:
        """Write the UNet with its deep feature as an output, and its shallow part with it as an input."""
        whole, precision = split.whole(unet), _of_unet(self._parts.checkpoint)
        self._write("unet", whole, inputs, ["output", "deep"], precision)
        with torch.no_grad():
            inputs["deep"] = whole(*inputs.values())[1]
        self._write(SHALLOW, split.shallow(unet), inputs, ["output"], precision)

    def _with_scales(
        self, network: nn.Module, scales: Scales | None, inputs: dict[str, Tensor], rows: int
    ) -> nn.Module:
        """The network with an input for the scales of live LoRAs, if they change it. The input is added to `inputs`."""
        if scales is None:
            return network
        inputs[LORA_INPUT] = self._parts.live.typical(rows)
        return LiveNetwork(network, scales)

    def _write(
        self, kind: str, network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], half: Precision
    ) -> None:
        """Write one network. half: its precision if the request is for float16."""
        request = self._request
        quantization = self._quantization(inputs) if kind == "unet" and request.quantize else None
        self.written[kind] = write_network(
            self._folder / f"{kind}.onnx", network.eval(), inputs, outputs, _precision(request, half),
            measured=request.check, program="torch" in request.targets.names, quantization=quantization,
        )  # fmt: skip
        self._say(_line(kind, self.written[kind], request))
        if quantization is not None:
            self._judge(quantization, network)

    def _quantization(self, inputs: Mapping[str, Tensor]) -> Quantization:
        """How the UNet is quantised, by the frames of the request."""
        kind, frames, vae = self._request.quantize, self._request.frames, self._parts.vae
        assert kind is not None and len(frames) > 1, "frames to calibrate on and others"
        encode, scale = VaeEncoder(vae), latent_space(vae)["scale"]
        with torch.no_grad():
            latents = [encode(rgb) * scale for rgb in frames]
        table, top = alphas_cumprod_of(self._sampler.levels), float(self._sampler.steps["top"])
        feeds = list(typical(inputs, latents, table, top))
        held = -(-len(feeds) // 4)
        return Quantization(kind, feeds[:-held], feeds[-held:])

    def _judge(self, quantization: Quantization, network: nn.Module) -> None:
        """Compare pictures of the quantised UNet with those of torch. Raises ExportError below `LEAST_DB`."""
        decoder, scale = VaeDecoder(self._parts.vae), latent_space(self._parts.vae)["scale"]
        table, prediction = alphas_cumprod_of(self._sampler.levels), self._sampler.prediction

        def decode(output: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
            rgb: Tensor = decoder(clean(prediction, output, inputs, table) / scale)
            return rgb

        least = quantization.fidelity(self.written["unet"].path, network, decode)
        said = f"pictures are {least:.1f} dB or more from those of torch in float32"
        self._say(f"unet: {quantization.kind}, on {len(quantization.held)} frames not calibrated on {said}")
        check_fidelity(quantization.kind, least)


def _told(memory: AttentionMemory, request: Request) -> str:
    size = memory.numbers * (2 if request.dtype == "fp16" else 4) / 1e6
    return (
        f"attention {request.attention}, {len(memory.layers)} layers take {memory.references} references; a row keeps "
        f"{size:.1f} MB a call"
    )


def _precision(request: Request, half: Precision) -> Precision:
    """The precision `half`, which is for float16, changed to the dtype of the request."""
    if request.dtype == "fp32":
        return "single"
    bfloat: dict[Precision, Precision] = {
        "half": "bfloat", "half-with-single-products": "bfloat-with-single-products",
    }  # fmt: skip
    return bfloat.get(half, half) if request.dtype == "bf16" else half


def _of_unet(checkpoint: Checkpoint) -> Precision:
    config: Any = checkpoint.unet.config
    # Products in SD 2 overflow half precision, whatever its configuration says, unless factors are scaled before
    # (`half.py`). Of the small families only SD 2 has linear projections.
    second = config.get("use_linear_projection") and not checkpoint.family.xl
    return "half-with-single-products" if second or config.get("upcast_attention") else "half"


def _line(kind: str, one: Written, request: Request) -> str:
    verdict = "" if request.check else f", agrees with torch in float32 within {one.allowed:.3g}"
    rounded = "; checked with bfloat16 rounded in single precision" if one.computes.startswith("bfloat") else ""
    return f"{kind}: written, {one.computes}{verdict}{rounded}"


def _smooth(*shape: int) -> Tensor:
    """A smooth picture in [0,1] with some grain. Noise would be no typical input of an autoencoder."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(*shape[:2], 4, 4, generator=generator)
    scene = nn.functional.interpolate(coarse, shape[2:], mode="bicubic")
    return (scene + 0.02 * torch.randn(*shape, generator=generator)).clamp(0, 1)
