"""What is to be written is settled, and refused in one line, before any work."""

import pytest
import torch

from warpfuse.engine.errors import BackendMissing, BadInput
from warpfuse.engine.tensorrt_module import TENSORRT, TENSORRT_RTX, capabilities, not_installed
from warpfuse.export import targets
from warpfuse.export.targets import CARDS, Targets, parse_targets


@pytest.fixture
def rtx():
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)


def test_onnx_is_always_among_them_and_the_order_is_fixed(rtx):
    assert parse_targets("torch", None) == Targets(("onnx", "torch"))
    asked = parse_targets("tensorrt-rtx, torch,onnx", "sm120,sm89")
    assert asked == Targets(("onnx", "torch", "tensorrt-rtx"), ("sm120", "sm89"))
    assert asked.plans() == [(TENSORRT_RTX, "sm120"), (TENSORRT_RTX, "sm89")]


@pytest.mark.parametrize(
    "to, gpu, dtype, says",
    [
        (
            "onnx,openvino",
            None,
            "fp16",
            "'openvino' is not known; expected some of onnx, torch, tensorrt-rtx, tensorrt",
        ),
        ("onnx,", None, "fp16", "'' is not known"),
        ("torch,onnx,torch", None, "fp16", "'torch' is there twice"),
        ("torch", "sm89", "fp16", "Add --to tensorrt-rtx"),
        ("tensorrt-rtx", "sm90", "fp16", r"'sm90' is not known; tensorrt-rtx builds for .*sm89 \(RTX 40\)"),
        ("tensorrt-rtx", "sm89,sm89", "fp16", "'sm89' is there twice"),
        ("tensorrt-rtx", "sm75", "bf16", "RTX 20 has no bfloat16"),
    ],
)
def test_what_cannot_be_written_is_one_line(rtx, to, gpu, dtype, says):
    with pytest.raises(BadInput, match=says) as caught:
        parse_targets(to, gpu, dtype)
    assert "\n" not in str(caught.value)


def test_without_a_card_it_must_be_said_which(rtx, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match=r"no card, say with --gpu which it is for: .*sm86 \(RTX 30\), sm89 \(RTX 40\)"):
        parse_targets("tensorrt-rtx", None)


def test_a_card_in_the_machine_is_the_default(rtx, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(targets, "capability", lambda device: "sm86")
    assert parse_targets("tensorrt-rtx", None).gpus == ("sm86",)
    monkeypatch.setattr(targets, "capability", lambda device: "sm90")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    with pytest.raises(BadInput, match=r"H100 is sm90.*or --to tensorrt"):
        parse_targets("tensorrt-rtx", None)


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "tensorrt"])
def test_what_is_not_installed_is_told_with_the_line_that_installs_it(monkeypatch, backend):
    monkeypatch.setattr(targets, "not_installed", lambda flavour: f"{flavour.backend} is not installed: pip install x")
    with pytest.raises(BackendMissing, match=rf"--to {backend}.*{backend} is not installed: pip install x"):
        parse_targets(backend, "sm89" if backend == "tensorrt-rtx" else None)


def test_tensorrt_without_a_card_is_to_be_run_where_it_is(monkeypatch):
    monkeypatch.setattr(targets, "not_installed", lambda flavour: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("warpfuse.engine.tensorrt_module.not_installed", lambda flavour: None)
    with pytest.raises(BackendMissing, match=r"run it on the machine with the card: .*0 CUDA devices"):
        parse_targets("tensorrt", None)


def test_every_card_it_builds_for_has_a_name(rtx):
    assert set(capabilities(TENSORRT_RTX)) == set(CARDS) and not TENSORRT.ahead
