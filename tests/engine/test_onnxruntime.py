"""The engine contract on ONNX Runtime: what it computes, whose memory it is, and what it says of a wrong feed."""

from types import SimpleNamespace

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from support.card import card
from support.networks import affine

from warpfuse.engine import device, open_engine
from warpfuse.engine.backends.onnxruntime import KEPT
from warpfuse.engine.errors import BackendMissing, EngineError


@pytest.fixture
def engine(tmp_path):
    engine = open_engine(affine(tmp_path / "affine.onnx"), "onnxruntime", "cpu", threads=1)
    yield engine
    engine.close()


def test_it_computes(engine):
    x = torch.arange(3 * 4 * 5, dtype=torch.float32).reshape(1, 3, 4, 5)
    assert torch.equal(engine({"x": x})["y"], 2 * x)


def test_it_tells_its_inputs_and_outputs(engine):
    spec = engine.inputs[0]
    assert (spec.name, spec.dtype, spec.shape) == ("x", "float32", (None, 3, None, None))
    assert [spec.name for spec in engine.outputs] == ["y"]


def test_an_output_lives_until_the_next_but_one_call(engine):
    x = torch.ones(1, 3, 2, 2)
    first = engine({"x": x})["y"]
    engine({"x": 2 * x})
    assert torch.equal(first, 2 * x), "the second call used the other slot"
    engine({"x": 5 * x})
    assert torch.equal(first, 10 * x), "control: the third call takes the first slot again"


def test_a_view_is_fed_as_what_it_shows(engine):
    x = torch.randn(1, 3, 6, 4).transpose(2, 3)
    assert torch.equal(engine({"x": x})["y"], 2 * x)


def test_sizes_may_change(engine):
    for size in ((4, 4), (8, 6), (4, 4)):
        x = torch.randn(1, 3, *size)
        assert torch.equal(engine({"x": x})["y"], 2 * x)


def test_shapes_that_come_in_turns_are_learned_once_each(engine):
    """A shape that was learned is answered in the same memory again."""
    given = []  # outputs are held, so that their memory cannot come back as another's

    def call(rows):
        x = torch.randn(rows, 3, 4, 4)
        y = engine({"x": x})["y"]
        assert torch.equal(y, 2 * x)
        places = {held.data_ptr() for held in given}
        given.append(y)
        return y.data_ptr() in places

    for rows in (1, 3, 1, 3, 2, 1, 3):
        call(rows)
    assert all(call(rows) for rows in (1, 3, 1, 3))
    for rows in range(4, 4 + KEPT):
        assert not call(rows)
    assert not call(1), "control: the oldest has made room for others"


@pytest.mark.parametrize(
    "feed, says",
    [
        ({"z": torch.ones(1, 3, 2, 2)}, "takes x, the graph feeds z"),
        ({}, "takes x"),
        ({"x": torch.ones(1, 4, 2, 2)}, r"built as float32 \[\?, 3, \?, \?\], the graph feeds float32 \[1, 4, 2, 2\]"),
        ({"x": torch.ones(1, 3, 2, 2, dtype=torch.float16)}, "feeds float16"),
        ({"x": torch.ones(3, 2, 2)}, r"\[3, 2, 2\]"),
    ],
)
def test_a_wrong_feed_is_told_with_name_expected_and_got(engine, feed, says):
    with pytest.raises(EngineError, match=says):
        engine(feed)


def test_a_run_that_fails_is_told_in_one_line(tmp_path):
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [0.0] * 16)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [x], [y], [weights])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "product.onnx"
    )
    engine = open_engine(tmp_path / "product.onnx", "onnxruntime")
    for _ in range(2):
        with pytest.raises(EngineError, match=r"product\.onnx fails on x \[2, 3\]: ") as caught:
            engine({"x": torch.ones(2, 3)})
        assert "\n" not in str(caught.value)
    assert engine({"x": torch.ones(2, 4)})["y"].shape == (2, 4), "and it goes on"
    with pytest.raises(EngineError, match=r"fails on x \[2, 3\]"):
        engine({"x": torch.ones(2, 3)})
    engine.close()


def test_an_unknown_element_type_is_refused(tmp_path):
    path = affine(tmp_path / "double.onnx", dtype=TensorProto.DOUBLE)
    with pytest.raises(EngineError, match="double"):
        open_engine(path, "onnxruntime")


def test_a_torn_file_is_refused_in_one_line(tmp_path):
    path = affine(tmp_path / "affine.onnx")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(EngineError, match=r"affine\.onnx cannot be opened") as caught:
        open_engine(path, "onnxruntime")
    assert "\n" not in str(caught.value)


def test_a_missing_file_an_unknown_backend_and_a_device_it_lacks_are_errors(tmp_path):
    path = affine(tmp_path / "affine.onnx")
    with pytest.raises(EngineError, match="no such network"):
        open_engine(tmp_path / "nothing.onnx")
    with pytest.raises(EngineError, match="Known: auto, onnxruntime"):
        open_engine(path, "onxruntime")
    with pytest.raises(BackendMissing, match="--device cpu"):
        open_engine(path, "auto", "cuda:0")


def test_on_a_card_single_precision_is_single_precision(tmp_path):
    with card() as sim:
        open_engine(affine(tmp_path / "affine.onnx"), "onnxruntime", "cuda:0").close()
        assert sim.providers[0]["use_tf32"] == "0"


def test_cuda_that_does_not_load_is_an_error_and_no_silent_cpu(tmp_path, monkeypatch):
    """By itself onnxruntime opens a session on the CPU when CUDA's libraries are missing."""
    from warpfuse.engine.backends import onnxruntime as backend

    monkeypatch.setattr(device, "new_stream", lambda device: SimpleNamespace(cuda_stream=1))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0")
    says = r"cannot load CUDA: it is built for 13\.0, torch for 12\.8, which must be of one major version"
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(BackendMissing, match=says):
        backend.open(affine(tmp_path / "affine.onnx"), "cuda:0")
