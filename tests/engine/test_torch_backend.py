"""Exported programs: what torch opens, agrees with ONNX Runtime on, and refuses to open."""

import io
import json
import logging
import pickle
import zipfile

import pytest
import torch
from support.networks import SHAPE, affine, affine_program

from warpfuse.engine import open_engine, pt2_archive
from warpfuse.engine.errors import EngineError
from warpfuse.engine.pt2_archive import check_archive


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return affine_program(tmp_path_factory.mktemp("programs") / "affine.pt2")


def test_sizes_may_change_where_the_program_lets_them(program):
    engine = open_engine(program, "torch")
    assert engine.inputs[0].shape == (None, 3, None, None)
    for size in ((4, 4), (8, 6), (4, 4)):
        x = torch.randn(1, 3, *size)
        assert torch.equal(engine({"x": x})["y"], 2 * x)


def test_a_program_of_one_size_tells_it(tmp_path):
    engine = open_engine(affine_program(tmp_path / "affine.pt2", dynamic=False), "torch")
    assert engine.inputs[0].shape == SHAPE and engine.outputs[0].shape == SHAPE
    with pytest.raises(EngineError, match=r"built as float32 \[1, 3, 4, 6\]"):
        engine({"x": torch.ones(1, 3, 4, 4)})


def test_it_opens_the_program_beside_the_onnx_file(tmp_path):
    path = affine(tmp_path / "unet.onnx")
    with pytest.raises(EngineError, match=r"unet\.pt2 is not beside unet\.onnx: export the bundle with --to torch"):
        open_engine(path, "torch")
    affine_program(tmp_path / "unet.pt2", scale=3.0)
    assert float(open_engine(path, "torch")({"x": torch.ones(SHAPE)})["y"].max()) == 3.0, "not the ONNX file's 2"


def test_it_leaves_torchs_threads_as_they_were(program):
    before = torch.get_num_threads()
    open_engine(program, "torch", threads=before + 1)({"x": torch.ones(SHAPE)})
    assert torch.get_num_threads() == before


def test_outputs_carry_no_gradients(program):
    assert not open_engine(program, "torch")({"x": torch.ones(SHAPE, requires_grad=True)})["y"].requires_grad


class Pair(torch.nn.Module):
    def forward(self, x):
        return x + 1, x - 1


def test_a_program_without_names_for_its_outputs_is_refused(tmp_path):
    torch.export.save(torch.export.export(Pair(), (torch.ones(2),)), tmp_path / "pair.pt2")
    with pytest.raises(EngineError, match="returns no dict"):
        open_engine(tmp_path / "pair.pt2", "torch")


class Attack:
    """Runs when it is unpickled; the flag tells whether it was."""

    ran = False

    def __reduce__(self):
        return (_run, ())


def _run():
    Attack.ran = True
    return ()


def repacked(program, into, change):
    """A copy of the archive; `change(name, data)` gives the new data of each file, None leaves it out."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(into, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
        extra = change(f"{old.namelist()[0].partition('/')[0]}/extra", b"")
        if extra:
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/data/constants/custom_obj_0", extra)
    return into


def with_evil_pickle(name, data):
    if not name.endswith("sample_inputs/model.pt"):
        return data
    buffer = io.BytesIO()
    torch.save((Attack(),), buffer)
    return buffer.getvalue()


def in_model(old, new):
    return lambda name, data: data.replace(old, new) if name.endswith("model.json") else data


def weights_pickled(name, data):
    if name.endswith("model_weights_config.json"):
        config = json.loads(data)
        for weight in config["config"].values():
            weight["use_pickle"] = True
        return json.dumps(config).encode()
    return data


@pytest.mark.parametrize(
    "change, says",
    [
        (with_evil_pickle, "pickle of more"),
        (lambda name, data: pickle.dumps(Attack()) if name.endswith("extra") else data, "custom_obj_0"),
        (weights_pickled, "pickled"),
        (in_model(b"torch.ops.aten.mul.Tensor", b"torch.hub.load"), r"calls 'torch\.hub\.load'"),
        (in_model(b"torch.ops.aten.mul.Tensor", b"torch.ops.mine.mul.default"), "calls 'torch.ops.mine"),
        (in_model(b"Symbol('s", b"exec('s"), "no arithmetic"),
        (in_model(b'"guards_code": []', b'"guards_code": ["exec(1)"]'), "no condition on sizes"),
        (lambda name, data: None if name.endswith("models/model.json") else data, "holds no program"),
    ],
)
def test_what_could_run_code_is_refused_before_torch_opens_it(program, tmp_path, change, says):
    Attack.ran = False
    path = repacked(program, tmp_path / "evil.pt2", change)
    assert path.read_bytes() != program.read_bytes()
    with pytest.raises(EngineError, match=says):
        open_engine(path, "torch")
    assert not Attack.ran


def test_control_torch_alone_runs_the_pickle(program, tmp_path, caplog):
    """Without the check the same archive runs its code: the tests above would notice."""
    caplog.set_level(logging.ERROR, logger="torch._export.serde.serialize")  # torch formats its own warning wrongly
    Attack.ran = False
    torch.export.load(repacked(program, tmp_path / "evil.pt2", with_evil_pickle))
    assert Attack.ran


@pytest.mark.parametrize(
    "text, fine",
    [
        ("2*s39", True),
        ("Mul(Integer(2), Symbol('s39', positive=True, integer=True))", True),
        ("((32 + 32*(((-1) + L['x'].size()[2]) // 2)) % (2 + L['x'].size()[2])) == 0", True),
        ("__import__('os').system('true')", False),
        ("L['x'].__class__", False),
        ("L.__class__.__mro__[1]", False),
        ("(lambda: 0)()", False),
        ("[s1 for s1 in s0]", False),
        ("S('exec')", False),
        ("Symbol('a b')", False),
        ("f'{s0}'", False),
        ("s0" * 6000, False),
        ("(" * 5000, False),
        ("", False),
        (3, False),
    ],
)
def test_only_arithmetic_of_sizes_is_evaluated(text, fine):
    assert pt2_archive.is_arithmetic(text) == fine


class Halves(torch.nn.Module):
    def forward(self, x):
        return {"y": torch.nn.functional.interpolate(torch.nn.functional.max_pool2d(x, 2), scale_factor=2.0) + x}


def test_a_program_whose_sizes_are_tied_by_guards_opens(tmp_path):
    half = torch.export.Dim("half", min=4, max=64)
    program = torch.export.export(Halves(), (torch.ones(1, 1, 16, 16),), dynamic_shapes={"x": {2: 2 * half}})
    torch.export.save(program, tmp_path / "halves.pt2")
    with zipfile.ZipFile(tmp_path / "halves.pt2") as archive:
        assert b'"guards_code": ["' in archive.read("halves/models/model.json"), "control: it has such guards"
    x = torch.rand(1, 1, 24, 16)
    assert torch.equal(open_engine(tmp_path / "halves.pt2", "torch")({"x": x})["y"], Halves()(x)["y"])


def test_control_a_repacked_archive_opens(program, tmp_path):
    path = repacked(program, tmp_path / "same.pt2", lambda name, data: data or None)
    check_archive(path)


@pytest.mark.parametrize("tear", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no archive"])
def test_a_torn_file_is_refused_in_one_line(program, tmp_path, tear):
    path = tmp_path / "torn.pt2"
    path.write_bytes(tear(program.read_bytes()))
    with pytest.raises(EngineError, match=r"torn\.pt2") as caught:
        open_engine(path, "torch")
    assert "\n" not in str(caught.value)
