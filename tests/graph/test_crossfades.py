"""A crossfade in a whole run: in one process, in several, and of several streams at once."""

import contextlib
import threading

import cv2
import numpy as np
import pytest
from support.waiting import until

from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import open_run
from warpfuse.stages.sources import open_source

SOURCE = "pattern:96x64@25,frames=1000000,motion=still"


@pytest.fixture
def source():
    """The picture of the source, float BGR."""
    return open_source(SOURCE).read().rgb[:, :, ::-1].astype(float)


def faded(config, folders, source):
    """How far every picture of each folder is from the source to its negative, 0..1; the run was told to cross over."""
    with contextlib.ExitStack() as undo:
        run = open_run(config, undo)
        run.start()

        def change():
            until(lambda: run.stats().frames.out >= 5, "some frames")
            run.change({"prompt": "negative", "over_s": 2})
            until(lambda: all(share(newest(folder), source) > 0.999 for folder in folders), "the negative")
            run.stop()

        asking = threading.Thread(target=change)
        asking.start()
        run.wait()
        asking.join()
        run.close()
    return [[share(cv2.imread(str(file)), source) for file in sorted(folder.glob("*.png"))] for folder in folders]


def newest(folder):
    """The picture before the newest, which may not be whole; None: there is none yet."""
    files = sorted(folder.glob("*.png"))
    return cv2.imread(str(files[-2])) if len(files) > 1 else None


def share(picture, source):
    """s of picture = (1 - s) source + s (255 - source), in the mean of the pixels that tell."""
    if picture is None:
        return 0.0
    tells = np.abs(255 - 2 * source) > 60
    return float(((picture - source)[tells] / (255 - 2 * source)[tells]).mean())


def check(shares):
    """Frames 40 ms apart, some of them left out: every share is a whole number of fiftieths, and they rise."""
    between = [share for share in shares if 0.005 < share < 0.995]
    assert len(between) >= 3, shares
    assert np.abs(np.array(between) * 50 - np.round(np.array(between) * 50)).max() < 0.2, between
    assert shares == pytest.approx(sorted(shares), abs=1e-3)
    assert shares[0] == pytest.approx(0, abs=1e-3) and shares[-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("workers", ["one", "stages"])
def test_a_run_crosses_over_by_the_times_of_its_frames(
    exact_bundle, tmp_path, short_folder, monkeypatch, workers, source
):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    monkeypatch.setenv("WARPFUSE_SHM", str(tmp_path))
    keys = {"source": SOURCE, "sinks": [str(tmp_path / "out" / "%05d.png")], "bundle": exact_bundle, "prompt": "same"}
    (tmp_path / "out").mkdir()
    config = validate({**keys, "fusion": 0, "realtime": True, "workers": workers})
    (shares,) = faded(config, [tmp_path / "out"], source)
    check(shares)


@pytest.mark.parametrize("workers", ["one", "stages"])
def test_cues_are_the_same_frames_in_every_placement(
    exact_bundle, tmp_path, short_folder, monkeypatch, workers, source
):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    monkeypatch.setenv("WARPFUSE_SHM", str(tmp_path))
    looks = {"plain": {"prompt": "same"}, "dark": {"prompt": "negative"}}
    keys = {"source": SOURCE, "frames": 30, "sinks": [str(tmp_path / "%05d.png")], "bundle": exact_bundle, "fusion": 0}
    schedule = {"every": "1 beat", "cues": ["plain", "dark", {"look": "dark", "prompt": "same, negative"}]}
    with contextlib.ExitStack() as undo:  # 25 frames/s, 120 beats/min: a beat is 12.5 frames
        run = open_run(validate({**keys, "looks": looks, "schedule": schedule, "workers": workers}), undo)
        run.start()
        run.wait()
    shares = [share(cv2.imread(str(file)), source) for file in sorted(tmp_path.glob("*.png"))]
    assert shares == pytest.approx([0.0] * 13 + [1.0] * 12 + [0.5] * 5, abs=0.01)


def test_streams_cross_over_together(exact_bundle, tmp_path, source):
    folders = [tmp_path / "a", tmp_path / "b"]
    own = {folder.name: {"source": SOURCE, "sinks": [str(folder / "%05d.png")]} for folder in folders}
    for folder in folders:
        folder.mkdir()
    config = read_streams({"bundle": exact_bundle, "prompt": "same", "fusion": 0, "realtime": True, "streams": own})
    for shares in faded(config, folders, source):
        check(shares)
