"""What the tests of the engines need of the machine."""

import pytest
import torch


@pytest.fixture
def cuda():
    """The first card; the test is skipped without one."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: this law is about streams of a card")
    return "cuda:0"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("WARPFUSE_CACHE", str(tmp_path / "cache"))
