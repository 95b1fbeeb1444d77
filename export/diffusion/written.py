"""A network of a checkpoint as an ONNX file, checked against torch in float32 before it is accepted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..onnx_writing import ExportError, accept, store_in_half, trace
from .half import to_half
from .live_graph import add_after_residual

Precision = Literal["half", "half-with-single-products", "half-weights", "single"]
"""What a network computes in: half precision with islands; with the products before a softmax among the islands; single
precision with weights stored as halves; single precision."""

TOLERANCE: dict[Precision, float] = {
    "single": 1e-3,
    "half-weights": 2e-2,
    "half": 5e-2,
    "half-with-single-products": 5e-2,
}
"""How far any value of a file may be from torch in float32, as a share of the largest value. Half precision has far
outliers: the decoder of SD-Turbo's architecture, 512x512, is off by 0.021 at most where the mean is 0.0003."""

MEAN_SHARE = 0.1
"""How far values may be on the mean, as a share of what any may be."""

EXTERNAL_BYTES = 1 << 30  # from here on weights lie in a file of their own: a protobuf ends at 2 GB


@dataclass(frozen=True, slots=True)
class Written:
    """A network on disk, and how far it is from torch: the largest and the mean difference over its outputs.

    largest  value of the outputs;  worst, mean: differences, None where they were not asked for
    """

    path: Path
    precision: Precision
    largest: float
    worst: float | None = None
    mean: float | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Name -> file: the network, and its weights where they lie beside it."""
        beside = _data(self.path)
        return {self.path.name: self.path, **({beside.name: beside} if beside.is_file() else {})}

    @property
    def tolerance(self) -> float:
        """The largest difference that is allowed; `MEAN_SHARE` of it is on the mean."""
        return TOLERANCE[self.precision] * self.largest

    @property
    def agrees(self) -> bool:
        """Whether what was measured is within the tolerance."""
        if self.worst is None or self.mean is None:
            return True
        return self.worst <= self.tolerance and self.mean <= MEAN_SHARE * self.tolerance  # not a number is neither


def write_network(
    path: Path, network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], precision: Precision, *,
    measured: bool = False, external_bytes: int = EXTERNAL_BYTES,
) -> Written:  # fmt: skip
    """Export at the static shapes of `inputs`, which are typical values, and compare with torch on them.

    measured  keep a file that is off too, and tell how far it is: the caller refuses it

    Raises ExportError: no sound file, or one that is off and not to be measured.
    """
    model = trace(network, inputs, outputs)
    add_after_residual(model.graph)
    if precision == "half-weights":
        store_in_half(model.graph)
    elif precision != "single":
        to_half(model, products_in_single=precision == "half-with-single-products")
    with torch.no_grad():
        results = network(*inputs.values())
    wanted = dict(zip(outputs, (results,) if isinstance(results, Tensor) else results, strict=True))
    largest = max(float(tensor.abs().max()) for tensor in wanted.values())
    if not math.isfinite(largest):
        raise ExportError(f"{path.name}: torch itself gives no finite numbers. Are the weights whole?")
    _save(model, path, external_bytes)
    del model
    allowed = TOLERANCE[precision] * largest
    if not measured:
        accept(path, inputs, wanted, allowed)
        return Written(path, precision, largest)
    written = Written(path, precision, largest, *differences(path, inputs, wanted))
    if written.agrees:
        accept(path, inputs, wanted, allowed)
    return written


def differences(path: Path, inputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[float, float]:
    """(largest, mean) absolute difference of a file's outputs from `wanted`, in ONNX Runtime on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        raise ExportError("what is exported is checked by onnxruntime: pip install 'warpfuse[cpu,export]'") from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    results = session.run(list(wanted), {name: tensor.numpy() for name, tensor in inputs.items()})
    gaps = [
        np.abs(result.astype(np.float64) - tensor.numpy())
        for result, tensor in zip(results, wanted.values(), strict=True)
    ]
    every = np.concatenate([gap.ravel() for gap in gaps])
    return float(every.max()), float(every.mean())


def _data(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


def _save(model: onnx.ModelProto, path: Path, external_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < external_bytes:
        onnx.save_model(model, path)
        return
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=_data(path).name,
        size_threshold=1024, convert_attribute=False,
    )  # fmt: skip
    _data(path).chmod(path.stat().st_mode)  # onnx makes it for its owner alone
