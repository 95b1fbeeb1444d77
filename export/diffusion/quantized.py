"""The UNet with 8-bit products, for cards: convolutions and linear layers in int8 or fp8 (E4M3), all else in float16.

Such a product is written between QuantizeLinear and DequantizeLinear, with DequantizeLinear after its weights, which
TensorRT fuses into one 8-bit kernel. Scales are symmetric, as TensorRT takes them: one for each activation, from its
largest value on typical frames, and one for each output channel of the weights. The products of attention stay in
float16, since only then are they one kernel with the softmax (`half.py`). Layers of few channels, at the latent's ends,
stay too, and so do those that see the prompt or the timestep alone.

NVIDIA's Model Optimizer does the same, but version 0.47 needs onnx 1.21 and onnxruntime-gpu 1.24, and cupy for CUDA 12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ..agreement import psnr
from ..integer_graph import Feed, Range, observed
from ..onnx_writing import ExportError
from .bfloat import raise_opset

Kind = Literal["fp8", "int8"]
KINDS: tuple[str, ...] = get_args(Kind)

LEAST_DB = 30.0
"""Least PSNR of pictures by the 8-bit UNet from those by torch in float32, on frames that were not calibrated on."""

OPSET = 19  # the first with fp8 and with scales in float16; from 21 on ONNX Runtime 1.32 refuses its own int8 graphs
_FEWEST_CHANNELS = 16
_LEAST_SCALE = 2.0**-14  # the smallest normal float16
_TOP = {"int8": 127.0, "fp8": 448.0}
_NUMPY: dict[str, Any] = {"int8": np.int8, "fp8": ml_dtypes.float8_e4m3fn}
_ONNX = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a UNet is quantised, and what by.

    calibrated  its inputs for frames, from which the scales are found
    held        its inputs for other frames, on which the pictures are compared
    """

    kind: Kind
    calibrated: Sequence[Mapping[str, Tensor]]
    held: Sequence[Mapping[str, Tensor]]

    def ranges(self, model: onnx.ModelProto, save: Callable[[onnx.ModelProto], bytes | str]) -> dict[str, Range]:
        """Range of the activation that each product takes, by the name of its node, in a model in single precision."""
        taken = {node.name: node.input[0] for node in products(model.graph)}
        found = observed(model, taken.values(), map(feed_of, self.calibrated), 1.0, save)
        return {name: found[entry] for name, entry in taken.items()}

    def fidelity(
        self, path: Path, network: nn.Module, decode: Callable[[Tensor, Mapping[str, Tensor]], Tensor]
    ) -> float:
        """Least PSNR in dB of pictures by a file from those by torch.

        decode  makes pictures of an output of the UNet and the inputs that it was for
        """
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = []
        for inputs in self.held:
            with torch.no_grad():
                wanted = network(*inputs.values())
                wanted = wanted if isinstance(wanted, Tensor) else wanted[0]
                output = torch.from_numpy(session.run(["output"], feed_of(inputs))[0])
                pictures = zip(decode(output, inputs), decode(wanted, inputs), strict=True)
                found += [psnr(a.numpy(), b.numpy()) for a, b in pictures]
        return min(found)


def parse_kind(text: str | None, dtype: str, targets: Sequence[str], calibrate: str | None = None) -> Kind | None:
    """Check `--quantize`. Raises ExportError for an unknown value, formats that it is not for, and `--calibrate`
    alone."""
    if text is None:
        if calibrate is not None:
            raise ExportError(f"--calibrate {calibrate}: nothing is quantised. Add --quantize {'|'.join(KINDS)}")
        return None
    if text not in KINDS:
        raise ExportError(f"--quantize {text}: expected {' or '.join(KINDS)}")
    if dtype != "fp16":
        raise ExportError(f"--quantize {text} --dtype {dtype}: the rest of the UNet is float16. Give --dtype fp16")
    if "torch" in targets:
        raise ExportError(f"--quantize {text} --to torch: a .pt2 has no 8-bit products. Leave torch out")
    return cast(Kind, text)


def products(onnx_graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The convolutions and linear layers that are quantised, in a graph of any precision."""
    weights = {tensor.name: list(tensor.dims) for tensor in onnx_graph.initializer}
    seen, found = {"x"}, []
    for node in onnx_graph.node:
        if seen.isdisjoint(node.input):
            continue
        seen.update(node.output)
        shape = weights.get(node.input[1], []) if len(node.input) > 1 else []
        layer = (node.op_type == "Conv" and len(shape) == 4) or (node.op_type == "MatMul" and len(shape) == 2)
        if layer and node.name and min(shape[:2]) >= _FEWEST_CHANNELS and node.input[0] not in weights:
            found.append(node)
    return found


def quantize(model: onnx.ModelProto, kind: Kind, seen: Mapping[str, Range]) -> None:
    """Quantise the products of a float16 model, in place.

    seen  range of the activation that each takes, by the name of its node
    """
    onnx_graph = model.graph
    weights = {tensor.name: tensor for tensor in onnx_graph.initializer}
    chosen = {node.name: node for node in products(onnx_graph)}
    nodes: list[onnx.NodeProto] = []
    stored: list[TensorProto] = []
    given: dict[str, str] = {}
    for node in onnx_graph.node:
        if node.name in chosen:
            entry, weight = node.input[0], node.input[1]
            if entry not in given:
                given[entry] = _quantized(entry, seen[node.name], kind, nodes, stored)
            if weight not in given:
                given[weight] = _dequantized(weights[weight], node.op_type == "Conv", kind, nodes, stored)
            node.input[0], node.input[1] = given[entry], given[weight]
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    needed = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in (*onnx_graph.initializer, *stored) if tensor.name in needed]
    kept = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del onnx_graph.node[:], onnx_graph.initializer[:]
    onnx_graph.node.extend(nodes)
    onnx_graph.initializer.extend(kept)
    raise_opset(model, OPSET)


def _quantized(
    entry: str, seen: Range, kind: Kind, nodes: list[onnx.NodeProto], stored: list[TensorProto]
) -> str:  # fmt: skip
    """Round an activation. Returns the name of the rounded tensor."""
    step = np.float16(max(max(-seen.least, seen.most) / _TOP[kind], _LEAST_SCALE))
    stored += [numpy_helper.from_array(np.asarray(step), f"{entry}.step"), _zero(f"{entry}.zero", kind, ())]
    about = [f"{entry}.step", f"{entry}.zero"]
    nodes.append(helper.make_node("QuantizeLinear", [entry, *about], [f"{entry}.steps"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{entry}.steps", *about], [f"{entry}.rounded"]))
    return f"{entry}.rounded"


def _dequantized(
    weight: TensorProto, convolution: bool, kind: Kind, nodes: list[onnx.NodeProto], stored: list[TensorProto]
) -> str:  # fmt: skip
    """Store weights in 8 bits. Returns the name of the rounded tensor."""
    name, axis = weight.name, 0 if convolution else 1
    values = numpy_helper.to_array(weight).astype(np.float32)
    others = tuple(n for n in range(values.ndim) if n != axis)
    steps = np.maximum(np.abs(values).max(others) / _TOP[kind], _LEAST_SCALE).astype(np.float16)
    counts = values / np.expand_dims(steps.astype(np.float32), others)
    counts = (np.rint(counts) if kind == "int8" else counts).clip(-_TOP[kind], _TOP[kind])
    stored += [
        numpy_helper.from_array(counts.astype(_NUMPY[kind]), f"{name}.steps"),
        numpy_helper.from_array(steps, f"{name}.step"),
        _zero(f"{name}.zero", kind, (len(steps),)),
    ]
    parts = [f"{name}.steps", f"{name}.step", f"{name}.zero"]
    nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}.rounded"], axis=axis))
    return f"{name}.rounded"


def _zero(name: str, kind: Kind, shape: tuple[int, ...]) -> TensorProto:
    return numpy_helper.from_array(np.zeros(shape, _NUMPY[kind]), name)


def check_fidelity(kind: Kind, least: float) -> None:
    """Raise ExportError for a least PSNR below `LEAST_DB`."""
    if not least >= LEAST_DB:
        raise ExportError(
            f"--quantize {kind}: pictures are {least:.1f} dB from those of torch in float32, {LEAST_DB:g} are needed. "
            "Leave it out"
        )


def feed_of(inputs: Mapping[str, Tensor]) -> Feed:
    """Inputs as ONNX Runtime takes them."""
    return {name: tensor.numpy() for name, tensor in inputs.items()}


def alphas_cumprod_of(levels: Mapping[str, Any]) -> Tensor:
    """alpha^2 of every timestep, from `levels` of a bundle."""
    from diffusers import DDIMScheduler

    kind: Any = DDIMScheduler
    scheduler = kind(
        levels["train_timesteps"], levels["beta_start"], levels["beta_end"], levels["schedule"],
        rescale_betas_zero_snr=levels["zero_terminal_snr"],
    )  # fmt: skip
    table: Tensor = scheduler.alphas_cumprod
    return table


def typical(
    inputs: Mapping[str, Tensor], latents: Sequence[Tensor], alphas_cumprod: Tensor, first: float
) -> Iterator[Mapping[str, Tensor]]:
    """Inputs of the UNet for frames, at the timesteps of `inputs` in turn, so that every row meets every one.

    inputs   typical inputs, of which `x` and `timestep` are replaced
    latents  of frames, scaled, [1, 4, h, w]
    first    the highest timestep
    """
    rows = inputs["x"].shape[0]
    generator = torch.Generator().manual_seed(0)
    for number, latent in enumerate(latents):
        steps = torch.tensor([first * (1 - ((row + number) % 4) / 4) for row in range(rows)])
        share = alphas_cumprod[steps.round().long()].view(-1, 1, 1, 1)
        noise = torch.randn(inputs["x"].shape, generator=generator)
        yield {**inputs, "x": share.sqrt() * latent + (1 - share).sqrt() * noise, "timestep": steps}


def clean(prediction: str, output: Tensor, inputs: Mapping[str, Tensor], alphas_cumprod: Tensor) -> Tensor:
    """x0 of every row, from the UNet's output."""
    share = alphas_cumprod[inputs["timestep"].round().long()].view(-1, 1, 1, 1)
    alpha, sigma, x = share.sqrt(), (1 - share).sqrt(), inputs["x"]
    match prediction:
        case "epsilon":
            return (x - sigma * output) / alpha
        case "v":
            return alpha * x - sigma * output
    return output
