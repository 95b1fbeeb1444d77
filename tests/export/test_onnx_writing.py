"""A file is accepted when it is sound and computes what the network does; what is not accepted leaves nothing."""

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from warpfuse.export.onnx_writing import ExportError, accept, load_weights, reference, trace, write_onnx

X = {"x": torch.linspace(-1, 1, 24).reshape(1, 2, 3, 4)}


class Affine(nn.Module):
    """Two outputs, so that they can be taken for one another."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * x, x - self.scale


def written(path, change=lambda model: None):
    model = trace(Affine(), X, ["y", "z"])
    change(model)
    onnx.save_model(model, path)
    return path


def wanted():
    return {"y": 2 * X["x"], "z": X["x"] - 2}


def test_a_sound_file_is_accepted(tmp_path):
    found = accept(written(tmp_path / "a.onnx"), X, wanted(), 1e-6)
    assert found.agrees and (found.network, found.target) == ("a", "onnx")


def drop_nodes(model):
    del model.graph.node[:]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 3, 4]))


@pytest.mark.parametrize(
    "change, says",
    [
        (drop_nodes, "has no node"),
        (lambda model: model.graph.output.pop(), r"outputs are y; expected y, z"),
        (lambda model: model.graph.node[0].ClearField("input"), "no valid ONNX"),
    ],
)
def test_a_file_that_is_not_sound_is_refused(tmp_path, change, says):
    with pytest.raises(ExportError, match=says) as caught:
        accept(written(tmp_path / "a.onnx", change), X, wanted(), 1e-6)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no network"])
def test_a_file_that_is_no_network_is_refused(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ExportError):
        accept(tmp_path / "a.onnx", X, wanted(), 1e-6)


@pytest.mark.parametrize("off", [1e-3, float("nan")])
def test_figures_that_are_off_are_refused(tmp_path, off):
    path = written(tmp_path / "a.onnx")
    with pytest.raises(ExportError, match="z is off by"):
        accept(path, X, {**wanted(), "z": X["x"] - 2 + off}, 1e-6)
    accept(path, X, {**wanted(), "z": X["x"] - 2 + 1e-7}, 1e-6)


class Moody(nn.Module):
    """Computes another thing each time, as a network with a state does: no file can agree."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


def test_what_is_not_accepted_leaves_nothing_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"before")
    moody = Moody()
    with pytest.raises(ExportError, match="is off by"):
        write_onnx(path, moody, X, reference(moody, X, ["y"]), tolerance=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"] and path.read_bytes() == b"before"
    write_onnx(path, Affine(), X, wanted(), tolerance=1e-6)
    assert accept(path, X, wanted(), 1e-6).worst <= 1e-6


class Evil:
    """What a pickle runs when it is opened carelessly: it writes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_weights_are_tensors_or_refused(tmp_path):
    torch.save({"net.scale": torch.tensor(5.0)}, tmp_path / "good.pth")
    assert load_weights(Affine(), tmp_path / "good.pth", prefix="net.").scale == 5
    torch.save({"scale": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(ExportError, match=r"evil\.pth are not those of Affine"):
        load_weights(Affine(), tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)["scale"].close()
    assert (tmp_path / "ran").exists()  # the control: it would have
    torch.save([torch.tensor(5.0)], tmp_path / "list.pth")
    with pytest.raises(ExportError, match="not those of Affine"):
        load_weights(Affine(), tmp_path / "list.pth")
