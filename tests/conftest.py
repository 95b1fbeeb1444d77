"""Tiers of tests, data that is not part of the project, and bundles that many tests use."""

import os
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch
from tiers import tier_of

pytest_plugins = ["support.shared_ends", "support.workers"]  # fixtures of theirs

# One thread: on a machine that is doing something else torch's pool waits longer than it works.
torch.set_num_threads(1)

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark each test with its tier, before `-m` is looked at."""
    tests = ROOT / "tests"
    for item in items:
        place = item.path.relative_to(tests).as_posix() + item.nodeid[item.nodeid.find("::") :]
        tier = tier_of(place)
        if tier is not None:
            item.add_marker(tier)


@pytest.fixture(autouse=True)
def ordinary_priority():
    """Keep threads at ordinary priority. A thread at real-time priority passes it on to processes that it starts, and
    two of those stop a machine of two cores, with the time limits of the tests. An encoder once set it."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    after = os.sched_getscheduler(0)
    if after != before[0]:
        os.sched_setscheduler(0, *before)
        pytest.fail(f"the test left this thread with scheduling policy {after}, expected {before[0]}")


@pytest.fixture(scope="session")
def data():
    """The folder of clips, flow and photographs beside the checkout. Without it the test is skipped."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: it holds clips and ground truth that are not part of the project")
    return folder


@pytest.fixture
def cuda():
    """The first card. Without a card the test is skipped."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: this law is about streams of a card")
    return "cuda:0"


@pytest.fixture(scope="session")
def exact_bundle(tmp_path_factory):
    """Folder of the bundle of `tests/support/exact.py`."""
    from support import exact

    return exact.write(tmp_path_factory.mktemp("bundles") / "exact")


@pytest.fixture
def short_folder():
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="wf", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session", params=["sd15", "sdxl"])
def lora_bundles(request, tmp_path_factory):
    """The bundles of `tests/support/lora_bundles.py`, for both families."""
    from support import lora_bundles

    return lora_bundles.write(tmp_path_factory.mktemp(f"loras-{request.param}"), request.param)


@pytest.fixture(scope="session")
def control_bundles(tmp_path_factory):
    """The bundles of `tests/support/control_bundles.py`, by name."""
    from support import control_bundles

    return control_bundles.write(tmp_path_factory.mktemp("controls"))


@pytest.fixture(scope="session")
def image_bundles(tmp_path_factory):
    """The bundles of `tests/support/image_bundles.py`, by name."""
    from support import image_bundles

    return image_bundles.write(tmp_path_factory.mktemp("style-images"))
