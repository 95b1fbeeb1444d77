"""Networks of others become bundles of maps: checked before anything is written, and run as masks."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from typer.testing import CliRunner

from warpfuse.cli import app
from warpfuse.engine.bundle import load_map_bundle
from warpfuse.engine.errors import BadInput
from warpfuse.engine.open import open_engine
from warpfuse.export.map_bundle import export_map
from warpfuse.export.onnx_writing import ExportError
from warpfuse.stages.controls.map_network import MapNetwork


def network(path, nodes=None, *, shape=(1, 3, 32, 48), gives=(1, 1, 32, 48), kind=TensorProto.FLOAT, more=()):
    """An ONNX file whose input is called `rgb` and whose output `found`: by default the mean of the channels."""
    nodes = nodes or [helper.make_node("ReduceMean", ["rgb"], ["found"], axes=[1], keepdims=1)]
    ends = [helper.make_tensor_value_info("rgb", kind, shape), *more]
    out = [helper.make_tensor_value_info("found", kind, gives)]
    model = helper.make_model(
        helper.make_graph(nodes, "n", ends, out), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save_model(model, path)
    return path


def found_in(bundle, rgb):
    return MapNetwork(open_engine(bundle.network(), "onnxruntime", "cpu"))(rgb)


def test_a_network_of_one_size_is_written_and_runs_on_every_size(tmp_path):
    bundle = export_map(tmp_path / "bright", network(tmp_path / "n.onnx"), licence="CC0-1.0")
    about = load_map_bundle(str(bundle.folder)).about
    assert (about.size, about.sizes, about.channels, about.licence) == ((48, 32), None, 1, "CC0-1.0")
    rgb = torch.rand(1, 3, 32, 48)
    assert torch.allclose(found_in(bundle, rgb), rgb.mean(1, keepdim=True), atol=1e-6)
    flat = torch.full((1, 3, 70, 50), 0.25)
    assert torch.allclose(found_in(bundle, flat), torch.full((1, 1, 70, 50), 0.25), atol=1e-6)


def test_a_network_of_any_size_says_which(tmp_path):
    sides = ("n", 3, "h", "w")
    same = [helper.make_node("Identity", ["rgb"], ["found"])]
    file = network(tmp_path / "n.onnx", same, shape=sides, gives=sides)
    about = export_map(tmp_path / "same", file, multiple=16, long_side=256).about
    assert about.size is None and about.channels == 3
    assert (about.sizes.multiple, about.sizes.default_long_side) == (16, 256)


def shifted(by):
    return [helper.make_node("ReduceMean", ["rgb"], ["grey"], axes=[1], keepdims=1),
            helper.make_node("Constant", [], ["by"], value_float=by),
            helper.make_node("Mul", ["grey", "by"], ["found"])]  # fmt: skip


HALVED = [helper.make_node("AveragePool", ["rgb"], ["found"], kernel_shape=[2, 2], strides=[2, 2])]


@pytest.mark.parametrize(
    "keys, told",
    [
        ({"shape": (1, 4, 32, 48)}, r"its input 'rgb' is float \[1, 4, 32, 48\]"),
        ({"shape": (1, 3, 32)}, r"is float \[1, 3, 32\]"),
        ({"kind": TensorProto.FLOAT16}, r"is float16 \[1, 3, 32, 48\]"),
        ({"more": [helper.make_tensor_value_info("t", TensorProto.FLOAT, [1])]}, "its inputs are rgb, t"),
        ({"nodes": shifted(255.0)}, "gives values from .* expected 0 to 1"),
        ({"nodes": shifted(float("nan"))}, "not finite"),
        ({"nodes": HALVED, "gives": (1, 3, 16, 24)}, r"of a picture of 48x32 it gives \[1, 3, 16, 24\]"),
        ({"nodes": [helper.make_node("Unheard", ["rgb"], ["found"])]}, "no valid ONNX network"),
    ],
)
def test_what_is_no_map_is_refused_and_nothing_is_written(tmp_path, keys, told):
    with pytest.raises(ExportError, match=told):
        export_map(tmp_path / "out", network(tmp_path / "n.onnx", **keys))
    assert not (tmp_path / "out").exists()


def test_no_file_and_no_network_are_told(tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    for file, told in (("missing.onnx", "no such file"), ("text.onnx", "no valid ONNX network")):
        with pytest.raises(BadInput, match=told):
            export_map(tmp_path / "out", tmp_path / file)


def test_the_command_writes_a_bundle_beside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network(tmp_path / "bright.onnx")
    done = CliRunner().invoke(app, ["export-map", "bright.onnx", "--licence", "MIT"], catch_exceptions=False)
    assert done.exit_code == 0 and "wrote bright: 48x32, 1 channel(s), licence MIT" in done.output
    assert load_map_bundle("./bright").about.source == "bright.onnx"


@pytest.mark.parametrize("size", [(512, 288), (640, 266), (288, 512)])
def test_the_person_that_ships_is_found(data, size):
    """A photograph of an astronaut before a flag and a model of a rocket."""
    import cv2

    picture = cv2.cvtColor(cv2.imread(str(data / "photos" / "skimage_astronaut.jpg")), cv2.COLOR_BGR2RGB)
    rgb = (
        torch.from_numpy(cv2.resize(picture, size, interpolation=cv2.INTER_AREA).transpose(2, 0, 1).copy())[None] / 255
    )
    bundle = load_map_bundle("person")
    mask = found_in(bundle, rgb)[0, 0].numpy()
    assert mask.shape == size[::-1]
    high, wide = size[1], size[0]

    def share(left, top, right, bottom):
        return float(mask[int(top * high) : int(bottom * high), int(left * wide) : int(right * wide)].mean())

    assert share(0.38, 0.15, 0.5, 0.3) > 0.9 and share(0.25, 0.6, 0.5, 0.9) > 0.9, "the face and the suit"
    assert share(0.0, 0.0, 0.2, 0.4) < 0.1 and share(0.7, 0.0, 1.0, 0.4) < 0.1, "the flag and the rocket"
    assert np.isfinite(mask).all()
