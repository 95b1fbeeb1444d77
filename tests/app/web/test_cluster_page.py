"""The page of a cluster: streams and hosts, pictures of the hosts, targets for Prometheus, and bundles by their sum."""

from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from warpfuse.cluster.bundle_store import BundleStore, head_origin
from warpfuse.cluster.controller import HostState, Status, StreamState
from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.errors import BundleError
from warpfuse.graph.errors import ConfigError
from warpfuse.web.cluster_page import application
from warpfuse.web.security import AccessRules
from warpfuse.web.server import WebServer

TOKEN = "for-reading"
ACCESS = AccessRules(token=TOKEN)


def told(http=""):
    hosts = [
        HostState("a:0", "L4", "runs", 0.2, ["yard"], "a", http),
        HostState("b:0", "L4", "it is starting", 0.0, [], "b", ""),
    ]
    streams = [
        StreamState("yard", "a:0", "runs", 10, 9, 0, 1, 0, 1),
        StreamState("door", "", "waits", 0, 0, 0, 0, 0, 0, "no host has the label site=north"),
    ]
    return Status(hosts, streams, ["n9 runs warpfuse 0.0"])


@pytest.fixture
def store(tmp_path):
    return BundleStore(tmp_path / "head")


def client(store, status=told):
    return TestClient(
        application("farm", status, store, ACCESS),
        base_url="http://127.0.0.1",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )


def test_it_tells_what_the_controller_tells(store):
    shown = client(store).get("/api/cluster").json()
    assert shown["cluster"] == "farm" and shown["troubles"] == ["n9 runs warpfuse 0.0"]
    assert [(one["name"], one["state"], one["out"], one["why"]) for one in shown["streams"]] == [
        ("yard", "runs", 9, ""),
        ("door", "waits", 0, "no host has the label site=north"),
    ]
    assert [host["state"] for host in shown["hosts"]] == ["runs", "it is starting"]


def test_targets_are_as_prometheus_takes_them_and_are_hosts_that_serve_figures(store):
    """https://prometheus.io/docs/prometheus/latest/http_sd/: a list of {targets: [host:port], labels: {name: text}}."""
    answer = client(store, lambda: told("10.0.0.2:41234")).get("/sd")
    assert answer.headers["content-type"] == "application/json"
    labels = {"cluster": "farm", "node": "a", "host": "a:0", "gpu": "L4"}
    assert answer.json() == [{"targets": ["10.0.0.2:41234"], "labels": labels}]
    assert client(store).get("/sd").json() == []


@pytest.mark.parametrize(
    "path", ["/", "/api/cluster", "/sd", "/api/streams/yard/picture.jpg", "/bundles/0/bundle.json"]
)
def test_nothing_is_told_without_the_token(store, path):
    assert client(store).get(path).status_code != 401, "control"
    assert client(store).get(path, headers={"Authorization": "Bearer other"}).status_code == 401


def test_a_controller_that_does_not_answer_and_a_host_that_is_gone_are_one_line(store):
    def silent():
        raise ConfigError("farm does not answer within 5 s")

    assert client(store, silent).get("/api/cluster").json() == {"error": "farm does not answer within 5 s"}
    gone = client(store, lambda: told("127.0.0.1:1")).get("/api/streams/yard/picture.jpg")
    assert gone.status_code == 502 and gone.json() == {"error": "host a:0 does not answer"}
    assert client(store).get("/api/streams/door/picture.jpg").json() == {"error": "stream door runs nowhere"}


@contextmanager
def head(store):
    with WebServer(application("farm", told, store, ACCESS), ACCESS, 0) as server:
        yield f"http://127.0.0.1:{server.port}"


def test_a_host_fetches_a_bundle_from_the_head_whole(store, exact_bundle, tmp_path):
    pinned, there = store.keep(Path(exact_bundle)), BundleStore(tmp_path / "host")
    sha256 = pinned.partition(":")[2]
    with head(store) as address:
        load_bundle(str(there.fetch(pinned, head_origin(address, sha256, TOKEN), address)))
        for other, token, says in (
            ("0" * 64, TOKEN, "the head does not have it"),
            (sha256, "other", "the head answers 401"),
        ):
            with pytest.raises(BundleError, match=says):
                BundleStore(tmp_path / "no").fetch(f"exact@sha256:{other}", head_origin(address, other, token), address)
    assert not [path for path in (tmp_path / "no").iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("file", ["../secret", "..%2fsecret", "unlisted", ""])
def test_the_head_gives_only_files_that_a_bundle_lists(store, exact_bundle, tmp_path, file):
    sha256 = store.keep(Path(exact_bundle)).partition(":")[2]
    (store.folder / "secret").write_text("secret")
    (store.folder / sha256 / "unlisted").write_text("secret")
    assert client(store).get(f"/bundles/{sha256}/bundle.json").status_code == 200, "control"
    answer = client(store).get(f"/bundles/{sha256}/{file}")
    assert answer.status_code == 404 and b"secret" not in answer.content
    assert client(store).get("/bundles/../secret").status_code == 404
