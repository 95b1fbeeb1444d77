"""Plans that come with a bundle: found by the same key, opened where the user trusts them, never written to."""

import logging

import pytest
from support.networks import convolutions

from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.brought_plans import TRUSTED, brought_plan
from warpfuse.engine.tensorrt_build import plan_for, plan_key
from warpfuse.engine.tensorrt_module import TENSORRT_RTX, not_installed

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def network(tmp_path):
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "bundle").mkdir()
    return convolutions(tmp_path / "bundle" / "net.onnx")


def key(network, gpu="sm89"):
    return plan_key(TENSORRT_RTX, network, None, gpu)


def bring(network):
    cache = ArtifactCache(network.parent / "plans")
    plan = plan_for(TENSORRT_RTX, network, None, "sm89", cache)
    cache.forget_locks()
    return plan


@pytest.mark.parametrize("trusted", ["bundle", ".", "elsewhere", ""])
def test_a_plan_is_opened_where_the_user_trusts_its_folder(network, tmp_path, monkeypatch, caplog, trusted):
    plan = bring(network)
    if trusted:
        monkeypatch.setenv(TRUSTED, f"/nowhere:{tmp_path / trusted}")
    with caplog.at_level(logging.WARNING):
        found = brought_plan(network, key(network))
    if trusted in ("bundle", "."):
        assert found == plan and not caplog.records
    else:
        assert found is None and "a plan is a program" in caplog.text and f"{TRUSTED}=" in caplog.text


def test_it_fits_one_card_and_one_network_and_is_whole(network, monkeypatch):
    plan = bring(network)
    monkeypatch.setenv(TRUSTED, str(network.parent))
    assert brought_plan(network, key(network)) == plan
    assert brought_plan(network, key(network, "sm120")) is None
    data = plan.read_bytes()
    plan.write_bytes(data[:-1])
    assert brought_plan(network, key(network)) is None
    plan.write_bytes(data)
    convolutions(network, size=64)
    assert brought_plan(network, key(network)) is None


def test_looking_for_one_writes_nothing(network, monkeypatch):
    monkeypatch.setenv(TRUSTED, str(network.parent))
    assert brought_plan(network, key(network)) is None
    assert [path.name for path in network.parent.iterdir()] == ["net.onnx"]
    bring(network)
    before = sorted(path.name for path in (network.parent / "plans").iterdir())
    brought_plan(network, key(network)), brought_plan(network, key(network, "sm120"))
    assert sorted(path.name for path in (network.parent / "plans").iterdir()) == before and len(before) == 2
