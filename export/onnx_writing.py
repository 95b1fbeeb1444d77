"""Writing a network as an ONNX file. A file that does not compute what torch does is not left behind."""

from __future__ import annotations

import os
import pickle
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from warpfuse.engine.errors import BadInput, one_line

from .agreement import Agreement, differences

OPSET = 17  # from 20 on GridSample's modes have other names, which TensorRT's importers take for "nearest"
SMALL = 512  # smaller tensors, such as biases, stay in single precision


N = TypeVar("N", bound=nn.Module)


class ExportError(BadInput):
    """A network cannot be exported: its weights do not fit, or the written file does not compute the same."""


def load_weights(network: N, weights: Path, prefix: str = "") -> N:
    """Load weights into `network`, on the CPU, and return it. Only tensors are unpickled.

    prefix  removed from the keys in the file

    Raises ExportError: the file cannot be read or has the weights of another network.
    """
    try:
        stored = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict({key.removeprefix(prefix): tensor for key, tensor in stored.items()})
    except OSError as error:
        raise ExportError(f"weights {weights}: {error.strerror or error}") from None
    except (RuntimeError, AttributeError, TypeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = one_line(error, 200)
        raise ExportError(f"weights {weights} are not those of {type(network).__name__}: {reason}") from None
    return network.eval()


def trace(
    network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], axes: Mapping[str, Any] | None = None
) -> onnx.ModelProto:
    """The ONNX model of `network`, traced with `inputs` in their order. axes: torch's `dynamic_axes`."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracing exporter is deprecated, but writes simpler graphs
        torch.onnx.export(
            network.eval(), tuple(inputs.values()), f"{folder}/network.onnx", input_names=list(inputs),
            output_names=list(outputs), dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
        model = onnx.load_model(f"{folder}/network.onnx")
    for node in model.graph.node:
        node.ClearField("doc_string")  # paths of the machine it was traced on
    return model


def store_in_half(onnx_graph: onnx.GraphProto) -> None:
    """Replace every large float32 initializer by a float16 one and a Cast, which ONNX Runtime folds on loading."""
    casts = []
    for tensor in onnx_graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < SMALL:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + ".half"))
        casts.append(helper.make_node("Cast", [name + ".half"], [name], name=name + ".single", to=TensorProto.FLOAT))
    nodes = [*casts, *onnx_graph.node]
    del onnx_graph.node[:]
    onnx_graph.node.extend(nodes)


def reference(network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of torch in float32 for `inputs`, by name."""
    with torch.no_grad():
        results = network(*inputs.values())
    return dict(zip(outputs, (results,) if isinstance(results, Tensor) else results, strict=True))


def write_onnx(
    path: Path, network: nn.Module, inputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *,
    tolerance: float, half: bool = False, measured: bool = False,
) -> Agreement:  # fmt: skip
    """Export at the static shapes of `inputs` to a temporary file, check it, and rename it to `path`.

    inputs     typical values, float32, on the CPU; the check is run on them too
    wanted     the outputs of the network for them: see `reference`
    tolerance  largest allowed difference of ONNX Runtime from torch, over all outputs
    half       store large weights in half precision; they must already be rounded to it
    measured   keep a file that differs more as well: the caller refuses it

    Raises ExportError: `accept` refuses the file, or onnxruntime is not installed.
    """
    model = trace(network, inputs, list(wanted))
    if half:
        store_in_half(model.graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        written = Path(folder) / path.name  # with the final name, which `accept` puts into errors
        onnx.save_model(model, written)
        agreement = accept(written, inputs, wanted, tolerance, measured=measured)
        written.replace(path)
    return agreement


def accept(
    path: Path, inputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float, *,
    mean_share: float = 1.0, measured: bool = False, run: Path | None = None,
) -> Agreement:  # fmt: skip
    """Check an ONNX file and return its difference from `wanted` for `inputs`.

    tolerance   largest allowed difference of a value
    mean_share  the mean difference may be this share of the tolerance
    measured    return larger differences too, in place of raising
    run         a file that is run instead, since ONNX Runtime lacks a type on the CPU, and computes the same

    Raises ExportError: no valid ONNX, no node, other names or shapes, or differences above the tolerance.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ExportError("what is exported is checked by onnxruntime: pip install 'warpfuse[cpu,export]'") from None
    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
        model = onnx.load_model(path, load_external_data=False)
    except Exception as error:  # onnx and protobuf raise types of their own, which moved between versions
        raise ExportError(f"{path.name} is no valid ONNX: {one_line(error, 300)}") from error
    if not model.graph.node:
        raise ExportError(f"{path.name} has no node: the exporter wrote an empty network")
    for what, names, values in (("inputs", inputs, model.graph.input), ("outputs", wanted, model.graph.output)):
        if [value.name for value in values] != list(names):
            found = ", ".join(value.name for value in values)
            raise ExportError(f"{path.name}: {what} are {found}; expected {', '.join(names)}")
    session = onnxruntime.InferenceSession(os.fspath(run or path), providers=["CPUExecutionProvider"])
    results = session.run(list(wanted), {name: tensor.numpy() for name, tensor in inputs.items()})
    return compare(path, "onnx", dict(zip(wanted, results, strict=True)), wanted, tolerance, mean_share, measured)


def compare(
    path: Path, target: str, found: Mapping[str, Any], wanted: Mapping[str, Tensor], tolerance: float,
    mean_share: float, measured: bool,
) -> Agreement:  # fmt: skip
    """The difference of `found` from `wanted`. Arguments: see `accept`. Raises ExportError for other shapes, and for
    differences above the tolerance."""
    for name, tensor in wanted.items():
        if tuple(found[name].shape) != tuple(tensor.shape):
            raise ExportError(f"{path.name}: {name} is {list(found[name].shape)}, torch gives {list(tensor.shape)}")
    worst, mean = differences(found, wanted)
    agreement = Agreement(path.stem, target, worst, mean, tolerance, mean_share * tolerance)
    if not agreement.agrees and not measured:
        gaps = {name: differences(found, {name: tensor}) for name, tensor in wanted.items()}
        name = next((n for n, (gap, _) in gaps.items() if not gap <= tolerance), next(iter(gaps)))
        gap, mean = gaps[name]
        what = f"{gap:.3g}" if not gap <= tolerance else f"{mean:.3g} on the mean"
        allowed = tolerance if not gap <= tolerance else mean_share * tolerance
        raise ExportError(f"{path.name}: {name} is off by {what} from torch, {allowed:.3g} are allowed")
    return agreement
