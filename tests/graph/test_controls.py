"""Controls through a whole graph: exactly off, live, once a frame, and no stream steers another."""

import hashlib

import cv2
import numpy as np
import pytest
from support import pipelines
from support.counted_calls import counted_calls
from support.pipelines import far

import warpfuse
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.checks import check_early
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.live_settings import NeedsRestart
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import run
from warpfuse.stages.controls.settings import KINDS
from warpfuse.stages.errors import ControlError, MaskError
from warpfuse.stages.sources import open_source

SIZE = "64x64"
CHANGED_AT = 3
ON = {"canny": 0.9, "sketch": {"kind": "image", "scale": 0.9}}
OFF = {"canny": 0, "sketch": {"kind": "image", "scale": 0}}


@pytest.fixture
def bundles(control_bundles):
    return control_bundles


@pytest.fixture(scope="module")
def pictures():
    source = open_source(f"pattern:{SIZE}@25,frames=6")
    return [source.read().rgb for _ in range(6)]


def styled(bundle, pictures, controls=None, stream=False, change=None, **keys):
    """Every picture; `change` of the controls is made before picture CHANGED_AT."""
    options = {"size": (64, 64), "steps": 2, "strength": 0.7, "fusion": 0.5, **keys}
    options["stages"] = {"predict": {"stream": stream}, **keys.get("stages", {})}
    changes = None if change is None else {CHANGED_AT: {"controls": change}}
    return pipelines.styled(pictures, changes, bundle=bundle, controls=controls or {}, **options)


@pytest.mark.parametrize("stream", [False, True])
def test_off_and_outside_the_window_is_the_bundle_without(bundles, pictures, stream):
    plain = styled(bundles["plain"], pictures, stream=stream)
    assert far(styled(bundles["steered"], pictures, stream=stream), plain) == 0
    assert far(styled(bundles["steered"], pictures, OFF, stream), plain) == 0
    never = {"canny": {"window": [999, 1000]}, "sketch": {"kind": "image", "window": [999, 1000]}}
    assert far(styled(bundles["steered"], pictures, never, stream), plain) == 0
    assert far(styled(bundles["steered"], pictures, ON, stream), plain) > 3, "the control: they do something"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["canny", "sketch"])
def test_a_change_is_there_from_exactly_the_next_frame_on(bundles, pictures, stream, name):
    """Each frame on its own. In a stream batch the call with the first new frame holds the last old one."""
    old = styled(bundles["steered"], pictures, OFF, stream, fusion=0)
    new = styled(bundles["steered"], pictures, {**OFF, name: ON[name]}, stream, fusion=0)
    found = styled(bundles["steered"], pictures, OFF, stream, {name: {"scale": 0.9}}, fusion=0)
    assert far(found, [*old[:CHANGED_AT], *new[CHANGED_AT:]]) == 0
    assert all(far([a], [b]) > 0 for a, b in zip(old, new, strict=True))


def test_thresholds_of_a_map_are_live(bundles, pictures):
    found = styled(bundles["steered"], pictures, {"canny": 0.9}, change={"canny": {"low": 5, "high": 10}}, fusion=0)
    fine = {"canny": {"scale": 0.9, "low": 5, "high": 10}}
    wanted = styled(bundles["steered"], pictures, fine, fusion=0)
    assert far(found[CHANGED_AT:], wanted[CHANGED_AT:]) == 0 < far(found[:CHANGED_AT], wanted[:CHANGED_AT])


@pytest.mark.parametrize("stream", [False, True])
def test_the_network_of_a_control_is_called_once_a_frame(bundles, pictures, stream, monkeypatch):
    calls = counted_calls(monkeypatch)
    styled(bundles["steered"], pictures, ON, stream, fusion=0)
    frames = len(pictures)
    assert calls["control_0"] == calls["control_1"] == frames
    assert calls["unet"] >= frames, "the control: the UNet is counted too"
    assert stream or calls["unet"] == 2 * frames


def test_streams_with_and_without_share_calls_and_have_the_bytes_they_have_alone(bundles, tmp_path):
    told = {"edges": {"controls": {"canny": 0.9}}, "both": {"controls": ON, "seed": 3}, "none": {"prompt": "oil"}}
    keys = {name: {"source": f"pattern:{SIZE}@25,frames={6 + n}", "steps": 2, "prompt": "ink", **own}
            for n, (name, own) in enumerate(told.items())}  # fmt: skip
    streams = {name: {**own, "sinks": [str(tmp_path / f"{name}.mkv")]} for name, own in keys.items()}
    stats = run(read_streams({"bundle": bundles["steered"], "streams": streams, "gather_ms": 50}))
    shared = stats.networks["unet"]
    assert shared["calls"] < shared["rows"], "frames of several streams were in one call"
    for name, own in keys.items():
        run(validate({**own, "bundle": bundles["steered"], "sinks": [str(tmp_path / "alone.mkv")]}))
        assert _bytes(tmp_path / f"{name}.mkv") == _bytes(tmp_path / "alone.mkv"), name
    run(
        validate({**keys["none"], "controls": ON, "bundle": bundles["steered"], "sinks": [str(tmp_path / "alone.mkv")]})
    )
    assert _bytes(tmp_path / "none.mkv") != _bytes(tmp_path / "alone.mkv"), "the control: with them it is another"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"image"}))
def test_every_kind_steers_whether_frames_are_sampled_alone_or_as_a_stream(bundles, pictures, kind, stream):
    keys = {"kind": kind, **({"of": "person"} if kind == "network" else {})}
    off = styled(bundles["steered"], pictures, {"sketch": {**keys, "scale": 0}}, stream)
    assert far(off, styled(bundles["plain"], pictures, stream=stream)) == 0
    assert far(styled(bundles["steered"], pictures, {"sketch": keys}, stream), off) > 0


@pytest.mark.parametrize("keys", [{}, {"stream": True}, {"fusion": 0}, {"pace": {"skip": 2}}])
def test_the_map_of_a_control_is_a_mask_whatever_its_scale(bundles, pictures, tmp_path, keys):
    """As a mask that is drawn alike, to the bit; of a map of the frame, the source where it is black."""
    drawn = np.zeros((64, 64), np.uint8)
    drawn[10:40, 20:] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), drawn)
    sketch = {"kind": "image", "picture": str(tmp_path / "mask.png"), "scale": 0}
    options = {"feather_px": 0, "steady": 0}
    of_map = styled(bundles["steered"], pictures, {"sketch": sketch}, mask={"kind": "map", "of": "sketch", **options},
                    **keys)  # fmt: skip
    of_file = styled(bundles["plain"], pictures, mask={"kind": "file", "of": sketch["picture"], **options}, **keys)
    sampled = slice(None, None, 2 if "pace" in keys else 1)  # of a held frame it is the last mask, warped
    assert far(of_map[sampled], of_file[sampled]) == 0 < far(of_map, styled(bundles["plain"], pictures, **keys))
    edges = styled(bundles["steered"], pictures, {"canny": {"scale": 0, "low": 5, "high": 20}}, mask="map:canny",
                   stages={}, **keys)  # fmt: skip
    assert far(edges, pictures) > 0 < far(edges, styled(bundles["plain"], pictures, **keys))


def test_a_mask_of_no_control_and_no_bundle_is_one_line(bundles, pictures):
    config = {"source": f"pattern:{SIZE}@25,frames=2", "sinks": ["null:"], "bundle": bundles["steered"],
              "mask": "map:edges", "controls": {"canny": 0}}  # fmt: skip
    with pytest.raises(
        MaskError, match=r"no control of this run is called 'edges' \(it has: canny\); no bundle"
    ) as caught:
        check_early(validate(config))
    assert "\n" not in str(caught.value)
    check_early(validate({**config, "mask": "map:canny"}))
    check_early(validate({**config, "mask": "map:person"}))


def test_the_past_needs_one(bundles, pictures):
    with pytest.raises(ConfigError, match=r"controls\.sketch: a map of kind 'past' is the last styled picture"):
        styled(bundles["steered"], pictures[:1], {"sketch": {"kind": "past"}}, stages={"fuse": {"reference": "latent"}})


def test_a_held_frame_is_spared_and_the_next_one_is_steered(bundles, pictures):
    held = styled(bundles["steered"], pictures, ON, pace={"skip": 2})
    assert len(held) == len(pictures) and far(held[:1], styled(bundles["steered"], pictures[:1], ON)) == 0


def test_in_processes_of_their_own_the_bytes_are_the_same(bundles, tmp_path):
    files = [tmp_path / f"{workers}.mkv" for workers in ("one", "stages")]
    for file in files:
        run(validate({
            "source": f"pattern:{SIZE}@25,frames=4", "sinks": [str(file)], "bundle": bundles["steered"], "steps": 2,
            "controls": ON, "workers": file.stem,
        }))  # fmt: skip
    assert _bytes(files[0]) == _bytes(files[1])


def test_what_cannot_be_asked_for_is_one_line(bundles, pictures, exact_bundle):
    with pytest.raises(ControlError, match=r"no control called 'cany'; did you mean 'canny'\?"):
        styled(bundles["steered"], pictures[:1], {"cany": {"kind": "canny"}})
    for bundle in (bundles["plain"], str(exact_bundle)):
        with pytest.raises(ControlError, match=r"this bundle has no control\. Export it again: .* --control canny="):
            styled(bundle, pictures[:1], {"canny": 1}, steps=1)
    with warpfuse.Pipeline(bundle=bundles["steered"], size=(64, 64), steps=2, controls={"canny": 0.5}) as pipeline:
        first = pipeline.push(pictures[0])
        for keys, says in (
            ({"sketch": {"kind": "image"}}, "cannot change while frames flow"),
            ({"canny": 9}, "less than or equal to 2"),
        ):
            with pytest.raises((NeedsRestart, ConfigError), match=says):
                pipeline.update(controls=keys)
        assert far([pipeline.push(pictures[0])], [first]) < 255


def _bytes(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
