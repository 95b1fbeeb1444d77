"""The exact bundle, and a short clip to run it on."""

import exact
import pytest


@pytest.fixture(scope="session")
def exact_bundle(tmp_path_factory):
    """Folder of the bundle of `exact.py`."""
    return exact.write(tmp_path_factory.mktemp("bundles") / "exact")
