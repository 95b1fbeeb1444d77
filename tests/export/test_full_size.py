"""The published architectures, at their size, with seeded weights: every network exports and builds for a card.

Minutes and 13 GB of memory: deselected unless `-m full` asks for them.
"""

import pytest
import torch
from support.random_checkpoint import write_random_checkpoint

from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.tensorrt_build import plan_key
from warpfuse.engine.tensorrt_module import TENSORRT_RTX, not_installed
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.raft_bundle import export_raft_small
from warpfuse.export.raft_small import RaftSmall
from warpfuse.export.taef2 import TaefDecoder, TaefEncoder, export_taef2
from warpfuse.export.targets import Targets

pytestmark = pytest.mark.full
SIZE = (512, 512)
RTX_40 = Targets(("onnx", "tensorrt-rtx"), ("sm89",))


@pytest.fixture(autouse=True)
def many_threads():
    """These compute for minutes; the rest of the suite is better off with one."""
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def built(bundle, kind):
    network = bundle.folder / bundle.about.networks[kind]
    return ArtifactCache(bundle.folder / "plans").find(plan_key(TENSORRT_RTX, network, None, "sm89"))


@pytest.mark.parametrize("family", ["sd-turbo", "sd15"])
def test_every_network_of_a_checkpoint_builds(tmp_path, family):
    source = write_random_checkpoint(tmp_path / family, family, small=False)
    request = Request(size=SIZE, steps=1, targets=RTX_40)
    bundle = export_checkpoint(tmp_path / "bundle", open_checkpoint(str(source)), request, print)
    plans = {kind: built(bundle, kind) for kind in ("text", "encoder", "unet", "decoder")}
    assert all(plans.values()) and plans["unet"].stat().st_size > 1.5e9


@pytest.mark.parametrize("family, reach, numbers", [("sd15", "up", 6_881_280)])
def test_a_network_with_attention_to_earlier_frames_builds_and_its_attention_is_fused(tmp_path, family, reach, numbers):
    source = write_random_checkpoint(tmp_path / family, family, small=False)
    request = Request(size=SIZE, steps=1, targets=RTX_40, attention=reach)
    bundle = export_checkpoint(tmp_path / "bundle", open_checkpoint(str(source)), request, print)
    about = bundle.about.attention
    assert (len(about.layers), about.numbers, about.references) == (9, numbers, 2)
    plan = built(bundle, "unet").read_bytes()
    assert b"_gemm_mha_v2" in plan, "the mask of weights keeps the builder from fusing softmax and products"
    assert len(plan) > 1.5e9


def test_the_flow_network_builds(tmp_path):
    torch.manual_seed(0)
    bundle = export_raft_small(tmp_path / "flow", RaftSmall(iterations=6).eval(), SIZE, RTX_40)
    assert built(bundle, "flow").stat().st_size > 1e6


def test_the_tiny_autoencoder_builds(tmp_path):
    torch.manual_seed(0)
    halves = TaefEncoder().half().float().eval(), TaefDecoder().half().float().eval()
    bundle = export_taef2(tmp_path / "tiny", *halves, SIZE, RTX_40)
    assert all(built(bundle, kind).stat().st_size > 1e6 for kind in ("encoder", "decoder"))
