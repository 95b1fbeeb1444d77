"""`warpfuse export --to ... --check`, end to end: files for every backend, one table, nothing left over a tolerance."""

import pytest
import torch
from support.random_checkpoint import write_random_checkpoint
from typer.models import TyperInfo

from warpfuse import cli
from warpfuse.commands import exporting
from warpfuse.engine import open_engine
from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.bundle import load_autoencoder_bundle, load_bundle, load_flow_bundle
from warpfuse.engine.tensorrt_build import plan_key
from warpfuse.engine.tensorrt_module import TENSORRT_RTX, not_installed
from warpfuse.export import taef2
from warpfuse.export.raft_small import RaftSmall

EVERYTHING = ("--to", "onnx,torch,tensorrt-rtx", "--gpu", "sm89", "--check")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The sub-application under the command, wherever the command itself stands with it."""
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    groups = [group for group in cli.app.registered_groups if group.name != "export"]
    monkeypatch.setattr(cli.app, "registered_groups", [*groups, TyperInfo(exporting.app, name="export")])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Small ones of three families."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: write_random_checkpoint(folder / family, family) for family in ("sd-turbo", "sdxl", "lcm")}


def rows(out):
    """(network, target) of every line of the table that agrees."""
    return [tuple(line.split()[:2]) for line in out.splitlines() if line.endswith("agrees")]


def check_plans(bundle):
    cache = ArtifactCache(bundle.folder / "plans")
    for name in bundle.about.networks.values():
        plan = cache.find(plan_key(TENSORRT_RTX, bundle.folder / name, None, "sm89"))
        assert plan is not None and f"plans/{plan.name}" not in bundle.about.files
    assert cache.contents()[0] == len(bundle.about.networks)
    assert len(list(cache.folder.iterdir())) == 2 * len(bundle.about.networks)  # no lock is left


@pytest.mark.parametrize(
    "family, size, steps, dtype",
    [("sd-turbo", "128x72", 1, "fp16"), ("sdxl", "96x64", 3, "bf16"), ("lcm", "64x96", 4, "fp32")],
)
def test_a_checkpoint_is_written_for_every_backend(command, checkpoints, tmp_path, family, size, steps, dtype):
    options = ("--size", size, "--steps", steps, "--dtype", dtype, "-o", tmp_path / "out")
    code, out, err = command("export", checkpoints[family], *options, *EVERYTHING)
    assert (code, err) == (0, "")
    networks = ("text", "encoder", "decoder", "unet")
    assert rows(out) == [(network, target) for network in networks for target in ("onnx", "torch")]
    assert "not run, for the card is not in this machine: plans for sm89" in out
    bundle = load_bundle(str(tmp_path / "out"))
    assert set(bundle.about.files) >= {f"{network}.{ending}" for network in networks for ending in ("onnx", "pt2")}
    check_plans(bundle)
    width, height = bundle.about.size
    assert open_engine(bundle.network("encoder"), "torch").outputs[0].shape == (1, 4, height // 8, width // 8)


def test_the_flow_network_is_written_for_every_backend(command, tmp_path):
    torch.manual_seed(0)
    torch.save({f"module.{key}": value for key, value in RaftSmall().state_dict().items()}, tmp_path / "raft.pth")
    options = ("--weights", tmp_path / "raft.pth", "--size", "104x72", "--iterations", "1", "-o", tmp_path / "flow")
    code, out, err = command("export", "raft-small", *options, *EVERYTHING)
    assert (code, err) == (0, "") and rows(out) == [("flow", "onnx"), ("flow", "torch")]
    check_plans(load_flow_bundle(str(tmp_path / "flow")))


def test_the_tiny_autoencoder_is_written_for_every_backend(command, tmp_path):
    torch.manual_seed(0)
    for name, kind in (("encoder", taef2.TaefEncoder), ("decoder", taef2.TaefDecoder)):
        torch.save(kind().half().state_dict(), tmp_path / f"{name}.pth")
    halves = ("--encoder", tmp_path / "encoder.pth", "--decoder", tmp_path / "decoder.pth")
    code, out, err = command("export", "taef2", *halves, "--size", "56x40", "-o", tmp_path / "tiny", *EVERYTHING)
    assert (code, err) == (0, "")
    assert rows(out) == [(half, target) for half in ("encoder", "decoder") for target in ("onnx", "torch")]
    check_plans(load_autoencoder_bundle(str(tmp_path / "tiny")))


def test_a_target_over_the_tolerance_leaves_no_bundle(command, tmp_path, monkeypatch):
    """The control: every network is measured on every target, and one line says which is off."""
    monkeypatch.setattr("warpfuse.export.taef2.TOLERANCE", 1e-12)
    torch.manual_seed(0)
    for name, kind in (("encoder", taef2.TaefEncoder), ("decoder", taef2.TaefDecoder)):
        torch.save(kind().half().state_dict(), tmp_path / f"{name}.pth")
    halves = ("--encoder", tmp_path / "encoder.pth", "--decoder", tmp_path / "decoder.pth")
    code, out, err = command("export", "taef2", *halves, "--size", "56x40", "-o", tmp_path / "tiny", *EVERYTHING)
    assert code == 2 and "over the tolerance: encoder" in err and err.count("\n") == 1
    assert out.count("OVER THE TOLERANCE") >= 2 and not (tmp_path / "tiny").exists()
