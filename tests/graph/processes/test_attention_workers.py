"""Attention to earlier frames in several processes: the same pictures, and a worker that dies begins anew."""

import os
import signal

import numpy as np
import pytest
from PIL import Image
from support import lora_bundles as make
from support.workers import inside

import warpfuse
from warpfuse.stages.sources import open_source

FRAMES = 14
PATTERN = f"pattern:64x64@25,frames={FRAMES}"
KEYS = {"steps": 2, "strength": 0.7, "fusion": 0, "prompt": "", "stages": {"predict": {"attention": "rerender"}}}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    source = make.write_random_checkpoint(folder / "sd15", "sd15")
    make.export(source, folder / "attends", attention="up")
    return str(folder / "attends")


@pytest.fixture(scope="module")
def pictures():
    source = open_source(PATTERN)
    return [source.read().rgb for _ in range(FRAMES)]


def styled(bundle, pictures):
    with warpfuse.Pipeline(bundle=bundle, size=(64, 64), **KEYS) as pipeline:
        return [pipeline.push(picture) for picture in pictures]


def shown(folder):
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_stages_in_processes_of_their_own_give_the_pictures_of_one(go, bundle, pictures, tmp_path):
    go(source=PATTERN, bundle=bundle, sinks=[str(tmp_path / "%04d.png")], workers="stages", **KEYS)
    assert same(shown(tmp_path), styled(bundle, pictures))


HANGS = """
import pathlib, time
from warpfuse.stages.diffusion.predict import Predict
sign, predict = pathlib.Path({sign!r}), Predict.__call__
def hanging(self, **inputs):
    if inputs["source"].stamp.seq == {at} and not sign.exists():
        sign.touch()
        time.sleep(600)
    return predict(self, **inputs)
Predict.__call__ = hanging
"""


def test_a_worker_that_was_killed_attends_to_nothing_of_before(go, bundle, pictures, tmp_path, monkeypatch):
    """What was shown, and behind it the pictures of a run that begins there."""
    sign, at = tmp_path / "hangs", 8
    inside(tmp_path, monkeypatch, HANGS.format(sign=str(sign), at=at))

    def kill(run):
        if run._shown() < at or not sign.exists():
            return False
        os.kill(run._pool.processes.pid("main"), signal.SIGKILL)
        return True

    workers = {"near": ["source", "upload", "encode", "flow"], "main": ["predict", "decode", "download"]}
    workers["show"] = ["sink_1"]
    stats, said = go(kill, source=PATTERN, bundle=bundle, sinks=[str(tmp_path / "%04d.png")], workers=workers, **KEYS)
    assert (stats.restarts, stats.frames.out) == (1, FRAMES), said
    found, whole = shown(tmp_path), styled(bundle, pictures)
    assert same(found, [*whole[:at], *styled(bundle, pictures[at:])])
    assert not same(found, whole), "the control: without the death it is another picture"
