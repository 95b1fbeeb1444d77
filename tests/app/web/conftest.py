"""A session over a small live pattern, and the page around it."""

from contextlib import contextmanager

import pytest

pytest.importorskip("fastapi", reason="the control page needs the extra 'web'")

from warpfuse.web.presets import Presets
from warpfuse.web.security import AccessRules
from warpfuse.web.server import WebServer, application
from warpfuse.web.session import PageSession
from warpfuse.web.source_library import SourceLibrary

LIVE = "pattern:96x64@25,live=1,frames=100000,motion=objects"


@pytest.fixture
def keys(exact_bundle):
    """Keys of a cheap run without end. The style `same` shows the source, `negative` its negative."""
    return {"source": LIVE, "size": "96x64", "bundle": exact_bundle, "prompt": "same"}


@pytest.fixture
def session(keys, tmp_path):
    session = PageSession(keys, record_to=tmp_path / "recordings")
    yield session
    session.close()


@pytest.fixture
def presets(tmp_path):
    return Presets(tmp_path / "presets")


@pytest.fixture
def library(tmp_path):
    return SourceLibrary(tmp_path / "uploads", recent=tmp_path / "recent.json")


@pytest.fixture
def page(presets, library):
    """page(session) -> a context manager that serves it and gives its address."""

    @contextmanager
    def serving(session, access=None, midi=None):
        access = access or AccessRules()
        with WebServer(application(session, presets, access, library, midi), access, 0) as server:
            yield server.url

    return serving
