"""The bundle `person`: MediaPipe's selfie segmentation as a network from pictures to masks.

    pip install 'warpfuse[cpu,export]' ai-edge-litert
    npm pack @mediapipe/selfie_segmentation          # holds the TFLite files
    python -m warpfuse.export.person selfie_segmentation_landscape.tflite -o person

Of its two networks the one for landscape format is shipped: on frames of 16:9 and wider it finds more, in half the
time. The network is converted operator by operator, and the result compared with TFLite's own runtime, layer by layer,
before it is accepted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from warpfuse.engine.bundle import MapBundle
from warpfuse.engine.bundle_writing import check_place, write_map_bundle
from warpfuse.engine.errors import BadInput

from .onnx_writing import ExportError, store_in_half
from .tflite_graph import TRANSPOSED, onnx_of

TOLERANCE = 1e-3  # relative to a layer's largest value; measured: about 1e-6
LICENCE = "Apache-2.0"
SOURCE = "MediaPipe Selfie Segmentation (Google), npm package @mediapipe/selfie_segmentation"


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert, compare and write the network. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m warpfuse.export.person", description=__doc__)
    parser.add_argument("file", type=Path, help="selfie_segmentation_landscape.tflite, or the one beside it")
    parser.add_argument("-o", "--output", type=Path, default=Path("person"), help="folder of the bundle")
    given = parser.parse_args(arguments)
    try:
        bundle, layers, worst = export_person(given.output, given.file)
    except BadInput as error:
        print(f"warpfuse: {error}", file=sys.stderr)
        return 2
    print(
        f"wrote {bundle.folder}: {layers} layers compared with TFLite, at most {worst:.1e} of a layer's largest value"
    )
    return 0


def export_person(folder: Path, file: Path) -> tuple[MapBundle, int, float]:
    """Write the bundle. Returns it, the number of compared layers, and their largest relative difference.

    Raises ExportError: no TFLite network of convolutions, or a layer that differs.
    """
    schema = _schema()
    check_place(folder)
    try:
        model = schema.ModelT.InitFromPackedBuf(bytearray(file.read_bytes()), 0)
        _, height, width, _ = (
            int(side) for side in model.subgraphs[0].tensors[int(model.subgraphs[0].inputs[0])].shape
        )
    except OSError as error:
        raise ExportError(f"{file}: {error.strerror or error}") from None
    except Exception as error:  # flatbuffers raises whatever a wrong offset leads to
        raise ExportError(f"{file} is no TFLite network. Give selfie_segmentation_landscape.tflite") from error
    every = onnx_of(model, schema, "map", every=True).SerializeToString()
    layers, worst = compare_layers(model, schema, every, _picture(height, width))
    converted = onnx_of(model, schema, "map")
    store_in_half(converted.graph)
    onnx.checker.check_model(converted, full_check=True)
    bundle = write_map_bundle(
        folder,
        {"map.onnx": converted.SerializeToString()},
        name="person",
        size=(width, height),
        channels=1,
        networks={"map": "map.onnx"},
        licence=LICENCE,
        source=SOURCE,
    )
    return bundle, layers, worst


def compare_layers(model: Any, schema: Any, every: bytes, rgb: npt.NDArray[np.float32]) -> tuple[int, float]:
    """Compare the layers of TFLite's runtime and ONNX Runtime. Returns their number and largest relative difference.

    every  the ONNX network converted from the model, with every layer as an output
    rgb    [1, h, w, 3] in [0, 1]

    TFLite's runtime lacks MediaPipe's transposed convolution, so it runs the network up to there. This layer and the
    sigmoid after it are compared with their formulas.
    Raises ExportError: a layer differs.
    """
    session = onnxruntime.InferenceSession(every, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"rgb": rgb.transpose(0, 3, 1, 2)}), strict=True))
    wanted = _by_tflite(model, schema, rgb)
    shares = {name: _share(found[name], wanted[name]) for name in wanted.keys() & found.keys()}
    shares |= _by_formula(model, schema, found)
    missing = found.keys() - shares.keys() - {"map"}
    if missing:
        raise ExportError(f"layers {', '.join(sorted(missing))} could not be compared with TFLite")
    name, worst = max(shares.items(), key=lambda pair: pair[1])
    if worst > TOLERANCE:
        raise ExportError(f"layer {name} is off by {worst:.1e} of its largest value; at most {TOLERANCE} is allowed")
    return len(shares), worst


def _by_tflite(model: Any, schema: Any, rgb: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    import flatbuffers
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    graph = model.subgraphs[0]
    operators, outputs = graph.operators, graph.outputs
    known = next((i for i, o in enumerate(operators) if _is_transposed(model, o)), len(operators))
    try:
        graph.operators = operators[:known]
        graph.outputs = [int(graph.operators[-1].outputs[0])]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        interpreter = Interpreter(
            model_content=bytes(builder.Output()),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,  # they fuse layers
            experimental_preserve_all_tensors=True,
        )
    finally:
        computed, graph.operators, graph.outputs = graph.operators, operators, outputs
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], rgb)
    interpreter.invoke()
    layers = [int(output) for operator in computed for output in operator.outputs]
    return {
        f"t{n}": interpreter.get_tensor(n).transpose(0, 3, 1, 2) for n in layers if len(graph.tensors[n].shape) == 4
    }


def _by_formula(model: Any, schema: Any, found: dict[str, npt.NDArray[np.float32]]) -> dict[str, float]:
    """Relative differences of transposed convolutions, out[s y + i, s x + j] = sum_c in[y, x, c] w[i, j, c] + b, and of
    the sigmoid of them, by layer."""
    shares = {}
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        output = f"t{int(operator.outputs[0])}"
        if _is_transposed(model, operator):
            x, weights, bias = (int(i) for i in operator.inputs)
            _, across, down = np.frombuffer(bytes(operator.customOptions), np.int32).tolist()
            w, b = _halves(model, weights), _halves(model, bias)
            picture = found[f"t{x}"]
            cells = np.einsum("ncyx,oijc->noyixj", picture, w)
            n, o, height, _, width, _ = cells.shape
            wanted = cells.reshape(n, o, height * down, width * across) + b[:, None, None]
            shares[output], behind = _share(found[output], wanted), int(operator.outputs[0])
        elif shares and code.builtinCode == schema.BuiltinOperator.LOGISTIC and int(operator.inputs[0]) == behind:
            shares[output] = _share(found[output], 0.5 + 0.5 * np.tanh(found[f"t{behind}"] / 2))
    return shares


def _is_transposed(model: Any, operator: Any) -> bool:
    code = model.operatorCodes[operator.opcodeIndex]
    return bool(code.customCode and code.customCode.decode() == TRANSPOSED)


def _halves(model: Any, tensor: int) -> npt.NDArray[np.float32]:
    """The constant of a tensor, which is stored in half precision and converted by an operator before it."""
    graph = model.subgraphs[0]
    stored = next(int(o.inputs[0]) for o in graph.operators if int(o.outputs[0]) == tensor)
    data = np.frombuffer(bytes(model.buffers[graph.tensors[stored].buffer].data), np.float16)
    return data.reshape(graph.tensors[stored].shape).astype(np.float32)


def _share(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    if found.shape != wanted.shape:
        raise ExportError(f"a layer of {list(found.shape)} is {list(wanted.shape)} in TFLite")
    return float(np.abs(found - wanted).max() / max(1e-6, float(np.abs(wanted).max())))


def _picture(height: int, width: int) -> npt.NDArray[np.float32]:
    """A test picture with waves, an edge and noise, [1, h, w, 3] in [0, 1]."""
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) * 0.3 + 0.5
    waves[height // 3 :, width // 2 :] *= 0.4
    noise = np.random.default_rng(0).normal(0, 0.05, waves.shape)
    return np.clip(waves + noise, 0, 1).astype(np.float32)[None]


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise ExportError("the network is read and compared by TFLite's runtime: pip install ai-edge-litert") from None
    return schema_py_generated


if __name__ == "__main__":
    sys.exit(main())
