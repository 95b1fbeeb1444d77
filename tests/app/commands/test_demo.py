"""The demonstration makes two whole videos and its figures, or leaves nothing behind."""

import importlib
import io
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from warpfuse.commands import demo as demonstration
from warpfuse.commands.demo import CLIP, SIDE_BY_SIDE, STEADY, compose, demo, table
from warpfuse.engine.bundle import find_bundles
from warpfuse.engine.errors import BadInput, WarpfuseError
from warpfuse.graph.errors import StageFailed
from warpfuse.stages.sources import open_source

FRAMES = 4


def console():
    return Console(width=120, file=io.StringIO())


def pictures(path):
    return [frame.rgb for frame in iter(open_source(str(path)).read, None)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The bundle of `exact.py`: its arithmetic is known, it needs no training."""
    return importlib.import_module("support.exact").write(tmp_path_factory.mktemp("bundles") / "exact")


@pytest.fixture(scope="module")
def shown(bundle, tmp_path_factory):
    """One run of the demonstration on a few frames: (folder, figures, what it printed)."""
    folder = tmp_path_factory.mktemp("demo") / "made" / "here"
    screen = console()
    figures = demo(folder, frames=FRAMES, bundle=bundle, console=screen)
    return folder, figures, screen.file.getvalue()


def test_two_videos_come_out_and_nothing_else(shown):
    folder, _, _ = shown
    assert sorted(path.name for path in folder.iterdir()) == [STEADY, SIDE_BY_SIDE]
    for name in (STEADY, SIDE_BY_SIDE):
        with av.open(str(folder / name)) as container:
            assert len(list(container.decode(video=0))) == FRAMES
            assert container.streams.audio, "the sound came along"


def test_the_panels_are_source_each_frame_alone_and_steady(shown):
    folder, figures, _ = shown
    width, height = figures["runs"]["steady"]["size"]
    wide, steady = pictures(folder / SIDE_BY_SIDE), pictures(folder / STEADY)
    source = [f.rgb for f in iter(open_source(str(CLIP), size=(width, height), frames=FRAMES).read, None)]
    assert wide[0].shape == (height, 3 * width + 8, 3)
    upper = slice(0, height // 2)  # above the labels
    for row, original, styled in zip(wide, source, steady, strict=True):
        panels = [row[upper, i * (width + 4) :][:, :width] for i in range(3)]
        assert difference(panels[0], original[upper]) < 6
        assert difference(panels[2], styled[upper]) < 6
        assert difference(panels[1], 255 - original[upper]) < 12, "the style of this bundle is the negative"
        assert difference(panels[0], panels[2]) > 30, "the control: the panels do differ"


def difference(a, b):
    return np.abs(a.astype(int) - b).mean()


def test_one_run_is_fused_and_the_other_is_not(shown):
    _, figures, _ = shown
    assert "fuse" in figures["runs"]["steady"]["stages"]
    assert "fuse" not in figures["runs"]["each frame alone"]["stages"]
    assert {run["frames"]["out"] for run in figures["runs"].values()} == {FRAMES}


def test_the_figures_are_shown(shown):
    folder, figures, printed = shown
    assert list(figures["consistency"]) == ["source", "each frame alone", "steady"]
    assert figures["consistency"]["steady"]["pairs"] == FRAMES - 1
    source = figures["consistency"]["source"]
    assert source["e_warp"] == source["e_warp_source"]
    for word in ("fps", "p50", "p95", "p99", "e_warp", "tof", "sharpness", str(folder / STEADY)):
        assert word in printed
    assert f"{figures['consistency']['steady']['e_warp'] * 1000:.3f}" in printed


@pytest.mark.parametrize("breaks", ["run", "compose", "measure"])
def test_what_breaks_leaves_what_was_there_before(breaks, bundle, tmp_path, monkeypatch):
    (tmp_path / STEADY).write_bytes(b"an older video")
    honest = getattr(demonstration, breaks)
    calls = []

    def failing(*args, **keys):
        calls.append(args)
        if len(calls) == (1 if breaks == "compose" else 2):
            raise StageFailed("predict", RuntimeError("out of memory"))
        return honest(*args, **keys)

    monkeypatch.setattr(demonstration, breaks, failing)
    with pytest.raises(WarpfuseError, match="out of memory"):
        demo(tmp_path, frames=2, bundle=bundle, console=console())
    assert [path.name for path in tmp_path.iterdir()] == [STEADY]
    assert (tmp_path / STEADY).read_bytes() == b"an older video"


@pytest.mark.parametrize("during", ["run", "compose", "measure"])
def test_stopped_it_ends_as_interrupted_and_leaves_nothing(during, bundle, tmp_path, monkeypatch):
    stop, honest = threading.Event(), getattr(demonstration, during)

    def stopping(*args, **keys):
        stop.set()
        return honest(*args, **keys)

    monkeypatch.setattr(demonstration, during, stopping)
    with pytest.raises((KeyboardInterrupt, BadInput)):  # BadInput: stopped before the first frame
        demo(tmp_path, frames=2, bundle=bundle, console=console(), stop=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_refused_before_anything_runs(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(demonstration, "run", lambda *a, **k: pytest.fail("it ran"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput):
        demo(tmp_path / "file", bundle=bundle, console=console())


def test_composing_ends_with_the_shortest_and_leaves_no_half_file(tmp_path, monkeypatch):
    short = str(tmp_path / "short.mp4")
    compose([str(CLIP)], ["one"], short)
    monkeypatch.setattr(
        demonstration, "open_source", lambda url, **k: open_source(url, **k, frames=3 if url == short else 5)
    )
    done = []
    compose([str(CLIP), short], ["a", "b"], str(tmp_path / "two.mp4"), lambda *at: done.append(at))
    assert done == [(n, 3) for n in (1, 2, 3)]
    assert pictures(tmp_path / "two.mp4")[0].shape == (360, 1284, 3)

    def torn(*_):
        raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        compose([str(CLIP), short], ["a", "b"], str(tmp_path / "torn.mp4"), torn)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short.mp4", "two.mp4"]


@pytest.mark.parametrize(("width", "height"), [(16, 16), (64, 36), (512, 288), (3840, 2160)])
def test_a_label_stays_in_its_panel(width, height):
    canvas = np.full((height + 20, width + 20, 3), 128, np.uint8)
    panel = canvas[10:-10, 10:-10]
    demonstration._stick(panel, demonstration._tag("each frame alone", width))
    assert (panel != 128).any()
    panel[:] = 128
    assert (canvas == 128).all()


def test_the_clip_is_small_credited_and_has_sound():
    assert CLIP.stat().st_size < 1 << 20
    with av.open(str(CLIP)) as container:
        assert "Blender Foundation" in container.metadata["copyright"] and "CC BY" in container.metadata["copyright"]
        assert container.metadata["artist"] == "Blender Foundation" and container.metadata["title"]
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height, video.frames) == ("h264", 640, 360, 132)
        assert audio.codec_context.name == "aac"
    data = CLIP.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat"), "a player can start before it has all"


def test_the_clip_is_shipped_with_the_package():
    project = Path(__file__).resolve().parents[3] / "pyproject.toml"
    if not project.is_file():
        pytest.skip("there is no pyproject.toml beside the tests")
    assert '"clips/*"' in project.read_text()


def test_the_table_shows_figures_that_could_not_be_measured():
    nothing = {"e_warp": float("nan"), "tof": float("nan"), "sharpness": 0.1}
    latency = {"p50": 1.0, "p95": 2.0, "p99": 3.0}
    run = {"size": [64, 36], "device": "cpu", "backend": "b", "precision": "float", "fps": 1.0, "latency_ms": latency}
    screen = console()
    screen.print(table({"runs": {"steady": run}, "consistency": {"steady": nothing}}))
    assert "nan" in screen.file.getvalue()


def test_the_shipped_bundle_makes_the_clip_steadier(tmp_path):
    if "embedded" not in find_bundles():
        pytest.skip("the embedded bundle has not been made yet: python -m warpfuse.export.embedded")
    # Fusion takes 1 / (1 - weight) = 5 frames to settle: over the first few the picture still changes more.
    consistency = demo(tmp_path, frames=24, console=console())["consistency"]
    alone, steady = consistency["each frame alone"], consistency["steady"]
    assert steady["e_warp"] < alone["e_warp"]
    assert steady["sharpness"] > 0.6 * alone["sharpness"], "not by blurring"
