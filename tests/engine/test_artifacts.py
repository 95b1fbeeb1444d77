"""The artifact cache: one whole file for one key, whatever happens to the process that builds it."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest

from warpfuse.engine.artifacts import ArtifactCache, ArtifactKey, cache_folder, network_hash
from warpfuse.engine.errors import EngineError

KEY = ArtifactKey("ab" * 32, (("x", (1, 3, 64, 64)),), "float16", "tensorrt-rtx", "1.7.1", "sm89", (("level", "3"),))
DATA = b"plan" * 1000
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def cache(tmp_path):
    return ArtifactCache(tmp_path / "artifacts")


def write(path):
    path.write_bytes(DATA)


def never(path):
    raise AssertionError("built again")


def test_it_is_built_once(cache):
    first = cache.get(KEY, write)
    assert first.read_bytes() == DATA
    assert cache.get(KEY, never) == first
    assert ArtifactCache(cache.folder).get(KEY, never) == first, "another process finds it"


@pytest.mark.parametrize(
    "other",
    [
        {"network": "cd" * 32},
        {"inputs": (("x", (2, 3, 64, 64)),)},
        {"inputs": (("x", (1, 3, 64, 72)),)},
        {"dtype": "float32"},
        {"backend": "tensorrt"},
        {"version": "1.7.2"},
        {"gpu": "sm120"},
        {"options": ()},
    ],
)
def test_what_differs_in_anything_is_another_artifact(cache, other):
    cache.get(KEY, write)
    assert cache.find(replace(KEY, **other)) is None
    assert cache.find(replace(KEY)) is not None, "control: the same key finds it"


def test_the_sidecar_says_what_it_is(cache):
    about = json.loads(cache.get(KEY, write).with_suffix(".json").read_text())
    assert about["backend"] == "tensorrt-rtx" and about["gpu"] == "sm89" and about["bytes"] == len(DATA)
    assert about["inputs"] == [["x", [1, 3, 64, 64]]]


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(DATA[:-1]),
        lambda path: path.write_bytes(b"x" + DATA[1:]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: path.with_suffix(".json").write_text(
            path.with_suffix(".json").read_text().replace("sm89", "sm75")
        ),
    ],
)
def test_a_torn_or_stale_one_is_built_again(cache, harm):
    path = cache.get(KEY, write)
    harm(path)
    assert cache.find(KEY) is None
    assert cache.get(KEY, write).read_bytes() == DATA
    assert cache.find(KEY) is not None


def test_a_build_that_fails_leaves_nothing(cache):
    def fails(path):
        path.write_bytes(DATA[:100])
        raise EngineError("out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        cache.get(KEY, fails)
    assert [path.suffix for path in cache.folder.iterdir()] == [".lock"]
    assert cache.get(KEY, write).read_bytes() == DATA


def build_until_killed(folder, started):
    def half(path):
        path.write_bytes(DATA[:100])
        started.set()
        signal.pause()

    ArtifactCache(folder).get(KEY, half)


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(cache):
    started = SPAWN.Event()
    builder = SPAWN.Process(target=build_until_killed, args=(cache.folder, started))
    builder.start()
    assert started.wait(60)
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert list(cache.folder.glob("*.tmp")), "control: it was killed in the middle"
    assert cache.find(KEY) is None
    assert cache.get(KEY, write).read_bytes() == DATA, "its lock died with it"
    assert not list(cache.folder.glob("*.tmp"))


def build_together(folder, barrier, built):
    def counted(path):
        with built.get_lock():
            built.value += 1
        path.write_bytes(DATA)

    barrier.wait(60)
    assert ArtifactCache(folder).get(KEY, counted).read_bytes() == DATA


def test_of_two_at_once_one_builds_and_both_have_a_whole_file(cache):
    barrier, built = SPAWN.Barrier(2), SPAWN.Value("i", 0)
    both = [SPAWN.Process(target=build_together, args=(cache.folder, barrier, built)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert built.value == 1


def test_the_folder_is_the_users_or_what_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("WARPFUSE_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("WARPFUSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "warpfuse"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="WARPFUSE_CACHE"):
        ArtifactCache(tmp_path / "file" / "cache").get(KEY, write)


def test_weights_beside_the_network_count(tmp_path):
    network = tmp_path / "unet.onnx"
    network.write_bytes(b"graph")
    alone = network_hash(network)
    weights = tmp_path / "unet.onnx.data"
    weights.write_bytes(b"weights")
    together = network_hash(network)
    weights.write_bytes(b"weight5")
    assert len({alone, together, network_hash(network)}) == 3


def test_one_made_elsewhere_is_adopted_once_and_counted(cache, tmp_path):
    assert cache.contents() == (0, 0)
    (tmp_path / "plan.bin").write_bytes(DATA)
    kept = cache.adopt(KEY, tmp_path / "plan.bin")
    assert kept == cache.find(KEY) and kept.read_bytes() == DATA
    (tmp_path / "plan.bin").unlink()
    assert cache.adopt(KEY, tmp_path / "plan.bin") == kept and cache.get(KEY, never) == kept
    (cache.folder / "timing-0.bin").write_bytes(b"")  # kept beside, no artifact
    cache.forget_locks()
    count, size = cache.contents()
    assert count == 1 and size > len(DATA) and not list(cache.folder.glob("*.lock"))
