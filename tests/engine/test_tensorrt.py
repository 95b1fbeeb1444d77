"""TensorRT: plans are built ahead of time without a card (RTX), kept, built again when torn; run with a card."""

import hashlib
import json

import onnx
import pytest
import torch
from support.card import card
from support.networks import affine, convolutions

from warpfuse.engine import background, open_engine
from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.bundle import shipped_bundles
from warpfuse.engine.cuda_streams import new_stream, on
from warpfuse.engine.errors import BackendMissing, EngineError
from warpfuse.engine.open import missing
from warpfuse.engine.tensorrt_build import plan_for
from warpfuse.engine.tensorrt_engine import check_memory, not_opened
from warpfuse.engine.tensorrt_module import (
    TENSORRT,
    TENSORRT_RTX,
    Flavour,
    capabilities,
    complaints,
    load,
    not_installed,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SIZE = {"x": (1, 3, 32, 32)}


@pytest.fixture
def rtx():
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    return TENSORRT_RTX


@pytest.fixture
def cache(tmp_path):
    return ArtifactCache(tmp_path / "plans")


def test_a_module_that_is_not_there_is_told_with_the_line_that_installs_it():
    absent = Flavour("tensorrt", "no_such_module_of_nvidia", "tensorrt", ahead=False)
    assert not_installed(absent) == "tensorrt is not installed: pip install 'warpfuse[tensorrt]'"
    with pytest.raises(BackendMissing, match="pip install"):
        load(absent)


def test_a_plan_is_built_without_a_card_and_once(rtx, cache, tmp_path):
    network = convolutions(tmp_path / "net.onnx")
    plan = plan_for(rtx, network, None, "sm89", cache)
    assert plan.stat().st_size > 10_000
    made = plan.stat().st_mtime_ns
    assert plan_for(rtx, network, None, "sm89", cache) == plan and plan.stat().st_mtime_ns == made
    assert plan_for(rtx, network, None, "sm120", cache) != plan, "control: another card is another plan"


def test_a_size_is_a_plan(rtx, cache, tmp_path):
    network = affine(tmp_path / "net.onnx")
    plans = {plan_for(rtx, network, {"x": shape}, "sm89", cache) for shape in ((1, 3, 32, 32), (2, 3, 32, 32))}
    assert len(plans) == 2


@pytest.mark.parametrize(
    "kind, shapes",
    [
        ("encoder", {"rgb": (1, 3, 128, 128)}),
        ("encoder_past", {"rgb": (1, 3, 128, 128)}),
        ("unet", {"x": (1, 32, 16, 16), "source": (1, 32, 16, 16), "level": (1, 2), "style": (1, 14)}),
        ("lines", {"rgb": (1, 3, 128, 128), "latent": (1, 32, 16, 16), "style": (1, 14)}),
        ("decoder", {"latent": (1, 32, 16, 16)}),
    ],
)
def test_the_shipped_networks_build(rtx, cache, kind, shapes):
    plan = plan_for(rtx, shipped_bundles() / "embedded" / f"{kind}.onnx", shapes, "sm89", cache)
    assert plan.stat().st_size > 100_000


def test_a_torn_plan_is_built_again(rtx, cache, tmp_path):
    network = convolutions(tmp_path / "net.onnx")
    plan = plan_for(rtx, network, None, "sm89", cache)
    whole = plan.stat().st_size
    plan.write_bytes(plan.read_bytes()[: whole // 2])
    assert plan_for(rtx, network, None, "sm89", cache).stat().st_size == whole


@pytest.mark.parametrize(
    "shapes, says",
    [
        (None, r"input 'x' is \[\?, 3, \?, \?\]: give open_engine shapes="),
        ({}, "give open_engine shapes="),
        ({"z": (1,)}, "takes x, a shape is given for z"),
        ({"x": (1, 4, 32, 32)}, r"'x' was exported as \[-1, 3, -1, -1\], it is to be built as \[1, 4, 32, 32\]"),
        ({"x": (3, 32, 32)}, r"to be built as \[3, 32, 32\]"),
    ],
)
def test_a_size_that_is_missing_or_does_not_fit_is_told(rtx, cache, tmp_path, shapes, says):
    with pytest.raises(EngineError, match=says):
        plan_for(rtx, affine(tmp_path / "net.onnx"), shapes, "sm89", cache)
    assert not list(cache.folder.glob("*.bin"))


@pytest.mark.parametrize("tear", [lambda b: b[:40], lambda b: b"", lambda b: b"no network"])
def test_a_torn_network_is_told_in_one_line_and_nothing_is_kept(rtx, cache, tmp_path, tear):
    network = affine(tmp_path / "net.onnx")
    network.write_bytes(tear(network.read_bytes()))
    with pytest.raises(EngineError, match=r"net\.onnx") as caught:
        plan_for(rtx, network, SIZE, "sm89", cache)
    assert "\n" not in str(caught.value)
    assert not list(cache.folder.glob("*.bin"))


def test_an_operator_it_lacks_is_named(rtx, cache, tmp_path):
    model = onnx.load(affine(tmp_path / "net.onnx"))
    model.graph.node[1].op_type, model.graph.node[1].name = "Multiplicate", "scaling"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(EngineError, match=r"net\.onnx cannot be read by tensorrt-rtx: .*'scaling', Multiplicate"):
        plan_for(rtx, tmp_path / "net.onnx", SIZE, "sm89", cache)


def test_a_card_it_does_not_build_for_is_told(rtx, cache, tmp_path):
    assert "sm89" in capabilities(rtx) and "sm90" not in capabilities(rtx)
    with pytest.raises(EngineError, match=r"builds for .*sm89.*, not for 'sm90'"):
        plan_for(rtx, convolutions(tmp_path / "net.onnx"), None, "sm90", cache)


def test_what_is_no_plan_is_told_with_the_remedy(rtx, tmp_path):
    trt = load(rtx)
    runtime = trt.Runtime(complaints(rtx).logger)
    plan = tmp_path / "net.bin"
    data = hashlib.sha512(b"").digest() * 100
    text = not_opened(trt, runtime, rtx, "net.onnx", plan, data, "")
    assert text == f"net.onnx: its plan is torn. Remove {plan} and open it again: it is built anew"


def test_too_little_memory_is_told_with_what_is_asked_free_and_what_to_lower(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 << 20, 8192 << 20))
    says = (
        "unet.onnx: weights of 1700 MiB asked, 100 of 8192 MiB free on cuda:0. Lower --size or --steps, or close what"
    )
    with pytest.raises(EngineError, match=says):
        check_memory("unet.onnx", 1700 << 20, "cuda:0", "weights")
    check_memory("unet.onnx", 99 << 20, "cuda:0", "weights")  # control: what fits is not refused


@pytest.mark.gpu
@pytest.mark.parametrize("flavour", [TENSORRT, TENSORRT_RTX], ids=lambda flavour: flavour.backend)
def test_it_agrees_with_onnxruntime_and_keeps_what_it_built(cuda, cache, tmp_path, flavour):
    reason = missing(flavour.backend, cuda)
    if reason is not None:
        pytest.skip(reason)
    network = convolutions(tmp_path / "net.onnx")
    x = torch.randn(SIZE["x"], generator=torch.Generator().manual_seed(0)).half()
    expected = open_engine(network, "onnxruntime", "cpu")({"x": x})["y"]
    engine = open_engine(network, flavour.backend, cuda)
    stream = torch.cuda.Stream(cuda)
    fed = x.to(cuda)
    stream.wait_stream(torch.cuda.current_stream(cuda))
    with torch.cuda.stream(stream):
        got = engine({"x": fed})["y"].cpu()
    assert float((got - expected).abs().max()) < 0.01 * float(expected.abs().max())
    kept = sorted(path.name for path in ArtifactCache().folder.glob("*.bin"))
    assert any(name.startswith("runtime-" if flavour.ahead else "timing-") for name in kept)
    engine.close()


def test_a_plan_built_beside_a_run_makes_way_for_one_built_alone(tmp_path):
    """TensorRT times kernels: what it measures on a card at work goes into no later build."""
    with card():
        network, cache, gpu = affine(tmp_path / "net.onnx"), ArtifactCache(tmp_path / "plans"), "Simulated Card sm89"
        beside = plan_for(TENSORRT, network, SIZE, gpu, cache, beside=True)
        assert not list(cache.folder.glob("timing-*")), "measured while something else ran"
        assert plan_for(TENSORRT, network, SIZE, gpu, cache, beside=True) == beside
        alone = plan_for(TENSORRT, network, SIZE, gpu, cache)
        assert alone != beside and list(cache.folder.glob("timing-*"))
        assert plan_for(TENSORRT, network, SIZE, gpu, cache, beside=True) == alone


def test_a_build_in_the_background_knows_that_a_run_is_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("WARPFUSE_CACHE", str(tmp_path / "cache"))
    with card():
        network = affine(tmp_path / "net.onnx")
        assert background.main([str(network), "tensorrt", "cuda:0", json.dumps(SIZE)]) == 0
        assert not list(ArtifactCache().folder.glob("timing-*"))
        open_engine(network, "tensorrt", "cuda:0", shapes=SIZE).close()
        assert list(ArtifactCache().folder.glob("timing-*")), "control: asked for, it has the card to itself"


@pytest.mark.parametrize("captures", [True, False])
def test_tensorrt_rtx_is_captured_where_it_says_that_it_can_be(tmp_path, monkeypatch, captures):
    """With memory of ours and kernels compiled before: else the simulated one says that it cannot be captured."""
    monkeypatch.setenv("WARPFUSE_CACHE", str(tmp_path / "cache"))
    with card() as sim, on(new_stream("cuda:0")):
        sim.rtx_captures = captures
        engine = open_engine(affine(tmp_path / "net.onnx"), "tensorrt-rtx", "cuda:0", shapes=SIZE)
        x = torch.ones(SIZE["x"], device="cuda:0")
        got = [engine({"x": n * x})["y"].sum().item() for n in range(3)]
        engine.close()
        assert got == [2.0 * n * x.numel() for n in range(3)] and not sim.races
        assert (sim.graphs, engine.device) == (3 if captures else 0, "cuda:0")
        assert list(ArtifactCache().folder.glob("runtime-*.bin")), "the kernels compiled for this card are kept"
