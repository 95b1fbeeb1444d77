"""Writing a network of a checkpoint as an ONNX file, checked against torch in float32 before it is accepted."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import Tensor, nn

from ..network_files import Written, external_data
from ..onnx_writing import ExportError, accept, compare, reference, store_in_half, trace
from ..torch_program import run_program, write_program
from .bfloat import emulate, raise_opset
from .half import BFLOAT, HALF, to_half
from .live_graph import add_after_residual
from .quantized import Quantization, quantize

Precision = Literal[
    "half", "half-with-single-products", "half-weights", "single", "bfloat", "bfloat-with-single-products"
]
"""Precision of a network.

    half, bfloat                float16 or bfloat16, with islands of single precision (`half.py`)
    ...-with-single-products    the same, with products before a softmax among the islands
    half-weights                single precision, with weights stored in half precision
    single                      single precision
"""

TOLERANCE: dict[str, float] = {
    "single": 1e-3,
    "half-weights": 2e-2,
    "half": 5e-2,
    "half-with-single-products": 5e-2,
    "bfloat": 2e-1,
    "bfloat-with-single-products": 2e-1,
    "fp8": 5e-1,
    "int8": 5e-1,
}
"""Largest allowed difference of a value from torch in float32, relative to the largest value of the first output.

Half precision has large outliers: in the decoder of SD-Turbo's architecture, 512x512, the largest difference is 0.021
and the mean 0.0003. bfloat16 has three bits less: in a small random decoder of 128x64 they are 0.096 and 0.004.
Of 8-bit products only gross mistakes are found so: `Quantization.fidelity` decides.
"""

MEAN_SHARE = 0.1
"""Largest allowed mean difference, relative to the largest allowed difference of a value."""

_TYPES: dict[Precision, tuple[torch.dtype, torch.dtype]] = {
    "single": (torch.float32, torch.float32),
    "half-weights": (torch.float16, torch.float32),
    "half": (torch.float16, torch.float16),
    "half-with-single-products": (torch.float16, torch.float16),
    "bfloat": (torch.bfloat16, torch.bfloat16),
    "bfloat-with-single-products": (torch.bfloat16, torch.bfloat16),
}  # (weights, compute) of the torch program. Its attention always sums products in single precision

EXTERNAL_BYTES = 1 << 30  # from this size on, weights are in a file of their own: a protobuf is limited to 2 GB


def write_network(
    path: Path, network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], precision: Precision, *,
    measured: bool = False, program: bool = False, external_bytes: int = EXTERNAL_BYTES,
    quantization: Quantization | None = None,
) -> Written:  # fmt: skip
    """Export at the static shapes of `inputs`, which are typical values, and compare with torch on them.

    measured  keep files that differ too much as well: the caller refuses them
    program   also write the `.pt2` for the torch backend
    external_bytes  size of the weights from which on they are in a file of their own
    quantization    of the products of a network in half precision

    Raises ExportError: a broken file, or without `measured` one that differs too much.
    """
    wanted = reference(network, inputs, outputs)
    largest = [float(tensor.abs().max()) for tensor in wanted.values()]
    if not all(map(math.isfinite, largest)):
        raise ExportError(f"{path.name}: torch itself gives no finite numbers. Are the weights whole?")
    kind = precision if quantization is None else quantization.kind
    allowed = TOLERANCE[kind] * largest[0]
    model = trace(network, inputs, outputs)
    add_after_residual(model.graph)
    seen = None
    if quantization is not None:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            watched = Path(folder) / path.name
            seen = quantization.ranges(model, lambda watching: _saved(watching, watched, external_bytes))
    if precision == "half-weights":
        store_in_half(model.graph)
    elif precision != "single":
        narrow = BFLOAT if precision.startswith("bfloat") else HALF
        to_half(model, products_in_single=precision.endswith("with-single-products"), kind=narrow)
        if narrow == BFLOAT:
            raise_opset(model)
    if quantization is not None and seen is not None:
        quantize(model, quantization.kind, seen)
    _save(model, path, external_bytes)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        run = None
        if precision.startswith("bfloat"):
            emulate(model)
            run = Path(folder) / path.name
            _save(model, run, external_bytes)
        del model
        agreements = [accept(path, inputs, wanted, allowed, mean_share=MEAN_SHARE, measured=measured, run=run)]
    if program:
        pt2 = path.with_suffix(".pt2")
        stored, compute = _TYPES[precision]
        write_program(pt2, network, inputs, outputs, stored=stored, compute=compute)
        agreements.append(compare(pt2, "torch", run_program(pt2, inputs), wanted, allowed, MEAN_SHARE, measured))
    return Written(path, kind, inputs, wanted, tuple(agreements), allowed, MEAN_SHARE)


def _saved(model: onnx.ModelProto, path: Path, external_bytes: int) -> str:
    _save(model, path, external_bytes)
    return str(path)


def _save(model: onnx.ModelProto, path: Path, external_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < external_bytes:
        onnx.save_model(model, path)
        return
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=external_data(path).name,
        size_threshold=1024, convert_attribute=False,
    )  # fmt: skip
    external_data(path).chmod(path.stat().st_mode)  # onnx makes it readable for its owner only
