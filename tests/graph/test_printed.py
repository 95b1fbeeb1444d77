"""Whole graphs of a bundle that draws lines: what is shown is printed, what comes back is not."""

import itertools

import numpy as np
import pytest
import torch

import warpfuse
from warpfuse.engine import load_bundle
from warpfuse.engine.bundle_writing import write_bundle
from warpfuse.engine.errors import BundleError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.streams import plan_as_asked
from warpfuse.graph.run import run
from warpfuse.stages.diffusion.palette import palette_of, read_table

from support.exact import write  # isort: skip

SIZE = (64, 48)


@pytest.fixture(scope="module")
def printed_bundle(tmp_path_factory):
    return write(tmp_path_factory.mktemp("printed") / "printed", lines=True)


@pytest.fixture
def picture():
    random = np.random.default_rng(0)
    return np.kron(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))


def wanted(rgb, bundle, style):
    """Paint of the style, its inks and lines, by the formulas, nearest entry of the table: uint8."""
    opened = load_bundle(bundle)
    tables = {"negative": read_table(opened.folder / "negative.lut")}
    palette = palette_of(opened.about.styles, {style: 1.0}, tables)
    source = rgb / 255
    paint = source if style == "same" else 1 - source
    if palette.table is not None:
        table = torch.from_numpy(palette.table.copy()).permute(3, 0, 1, 2)[None]
        grid = torch.from_numpy(paint).float()[None, None] * 2 - 1
        paint = torch.nn.functional.grid_sample(table, grid, align_corners=True)[0, :, 0].permute(1, 2, 0).numpy()
    cover = 0.5 * source.mean(-1, keepdims=True)
    return np.rint(255 * (paint + palette.lines * cover * (np.array(palette.ink) - paint)))


@pytest.mark.parametrize("style", ["same", "negative"])
def test_a_picture_is_paint_inks_and_lines(printed_bundle, picture, style):
    with warpfuse.Pipeline(bundle=printed_bundle, prompt=style, fusion=0, size=SIZE) as pipeline:
        shown = pipeline.push(picture)
    assert np.abs(shown - wanted(picture, printed_bundle, style)).max() <= 1


REFERENCES = ["picture", "latent", "output"]


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_still_picture_stays_what_it_was(printed_bundle, picture, reference, stream):
    """Lines that came back with the picture would be drawn on lines, and darken round by round."""
    stages = {"fuse": {"reference": reference, "weight": 0.9}, "predict": {"stream": stream}}
    steps = 3 if stream else 1
    with warpfuse.Pipeline(bundle=printed_bundle, prompt="same", size=SIZE, steps=steps, stages=stages) as pipeline:
        shown = [pipeline.push(picture) for _ in range(10)] + pipeline.drain()
    shown = [one.astype(int) for one in shown if one is not None]
    assert len(shown) == 10
    once = wanted(picture, printed_bundle, "same")
    assert max(np.abs(one - once).max() for one in shown) <= 2
    twice = once + 0.5 * 0.5 * (once / 255).mean(-1, keepdims=True) * (np.array([255, 0, 0]) - once)
    assert np.abs(twice - once).max() > 10, "the control: lines drawn on lines"


CHOICES = list(itertools.product(REFERENCES, [0, 1], [0, 1], ["off", "picture"], [False, True]))


@pytest.mark.parametrize("reference, entry, exit_, between, stream", CHOICES)
def test_every_choice_of_rows_runs_to_its_end(printed_bundle, reference, entry, exit_, between, stream):
    fuse = {"reference": reference, "entry": entry, "exit": exit_, "between": between, "weight": 0.7}
    keys = {"bundle": printed_bundle, "size": SIZE, "steps": 2, "source": "pattern:64x48@25,frames=6"}
    stages = {"fuse": fuse, "predict": {"stream": stream}}
    stats = run(validate({**keys, "sinks": ["null:"], "prompt": "same", "stages": stages}))
    assert stats.frames.into == stats.frames.out == 6


@pytest.mark.parametrize("pace", [{"skip": 2}, {"still": 0.02}])
def test_held_frames_keep_their_lines(printed_bundle, picture, pace):
    with warpfuse.Pipeline(bundle=printed_bundle, prompt="same", size=SIZE, pace=pace) as pipeline:
        shown = [pipeline.push(picture).astype(int) for _ in range(6)]
    assert max(np.abs(one - shown[0]).max() for one in shown) <= 2


def test_the_style_changes_inks_and_lines_with_its_frame(printed_bundle, picture):
    with warpfuse.Pipeline(bundle=printed_bundle, prompt="same", fusion=0, size=SIZE) as pipeline:
        pipeline.push(picture)
        pipeline.update(prompt="negative")
        shown = pipeline.push(picture)
        pipeline.update(strength=0.0)
        plain = pipeline.push(picture)
    assert np.abs(shown - wanted(picture, printed_bundle, "negative")).max() <= 1
    assert np.abs(plain.astype(int) - (255 - picture)).max() <= 1, "without inks and lines: the paint"


def test_processes_show_the_same_bytes(printed_bundle, tmp_path):
    keys = {"bundle": printed_bundle, "size": SIZE, "source": "pattern:64x48@25,frames=6", "prompt": "same"}
    for workers in ("one", "stages"):
        run(validate({**keys, "sinks": [str(tmp_path / f"{workers}.mp4")], "workers": workers}))
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "stages.mp4").read_bytes()


def test_the_drawn_graph_is_that_of_the_bundle(printed_bundle, exact_bundle):
    def stages(bundle):
        return [
            node.name for node in plan_as_asked(validate({"bundle": bundle, "source": "a.mp4", "sinks": "b.mp4"})).nodes
        ]

    assert "composite" in stages(printed_bundle) and "composite" not in stages(exact_bundle)
    assert "composite" not in [node.name for node in plan_graph(validate({"source": "a.mp4", "sinks": "b.mp4"})).nodes]


def test_lines_need_styles(printed_bundle, tmp_path):
    bundle = load_bundle(printed_bundle)
    about = bundle.about.model_dump(exclude={"format", "files"})
    files = {name: (bundle.folder / name).read_bytes() for name in bundle.about.files}
    with pytest.raises(BundleError, match=r"lines[.]onnx has no sha256"):
        write_bundle(tmp_path / "x", {k: v for k, v in files.items() if k != "lines.onnx"}, **about)
    with pytest.raises(BundleError, match=r"negative[.]lut has no sha256"):
        write_bundle(tmp_path / "x", {k: v for k, v in files.items() if k != "negative.lut"}, **about)
    without = {**about, "networks": {k: v for k, v in about["networks"].items() if k != "lines"}}
    with pytest.raises(BundleError, match=r"styles with a lut need networks[.]lines"):
        write_bundle(tmp_path / "x", files, **without)
    write_bundle(tmp_path / "y", files, **about)
