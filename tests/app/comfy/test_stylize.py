"""Clips and streams through the nodes are those of a Pipeline."""

import shutil
import threading

import numpy as np
import pytest
import torch

import warpfuse
from warpfuse.engine.errors import BadInput, BundleError

KEYS = {"prompt": "ink", "negative": "", "fusion": 0.8, "strength": 1.0, "steps": 1, "seed": 7}


def pictures_of(images):
    return [(image * 255).round().to(torch.uint8).numpy() for image in images]


def through_pipeline(images, **keys):
    height, width = images.shape[1:3]
    with warpfuse.Pipeline(size=(width, height), **keys) as pipeline:
        styled = [pipeline.push(rgb) for rgb in pictures_of(images)]
        return [rgb for rgb in styled if rgb is not None] + pipeline.drain()


@pytest.fixture(scope="module")
def bundle(runtime):
    return runtime.execute_node("WarpfuseBundle", name="embedded")[0]


@pytest.mark.parametrize(
    "settings, more",
    [
        ("", {}),
        ("stages: {fuse: {reference: latent}}", {"stages": {"fuse": {"reference": "latent"}}}),
        ("stages: {predict: {stream: true}}", {"steps": 3, "stages": {"predict": {"stream": True}}}),
    ],
)
def test_a_clip_is_that_of_a_pipeline_to_the_byte(run, bundle, clip, settings, more):
    keys = {**KEYS, **{key: value for key, value in more.items() if key == "steps"}}
    (images,) = run("WarpfuseStylize", bundle=bundle, images=clip, settings=settings, **keys)
    expected = through_pipeline(clip, **{**KEYS, **more})
    assert images.dtype == torch.float32 and images.shape == clip.shape
    assert all(np.array_equal(a, b) for a, b in zip(pictures_of(images), expected, strict=True))
    control = through_pipeline(clip, **{**KEYS, **more, "fusion": 0.0})
    assert not np.array_equal(expected[-1], control[-1]), "the control: fusion changes the last picture"


def test_every_clip_begins_without_a_past(run, exact_bundle, clip):
    keys = {**KEYS, "prompt": "negative"}
    first = run("WarpfuseStylize", bundle=exact_bundle, images=clip, **keys)[0]
    assert torch.equal(run("WarpfuseStylize", bundle=exact_bundle, images=clip, **keys)[0], first)
    assert np.array_equal(pictures_of(first)[0], 255 - pictures_of(clip)[0])


@pytest.mark.parametrize("height, width", [(48, 64), (45, 61), (17, 64), (13, 12)])
def test_pictures_of_any_size_come_back_at_their_own(run, exact_bundle, height, width):
    """The identity style, so that what is cut off again can be told from what stays."""
    images = (torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(1)) * 255).round() / 255
    keys = {**KEYS, "prompt": "same", "fusion": 0.0}
    (out,) = run("WarpfuseStylize", bundle=exact_bundle, images=images, **keys)
    assert all(np.array_equal(a, b) for a, b in zip(pictures_of(out), pictures_of(images), strict=True))


def test_a_size_that_is_asked_for_is_given(run, exact_bundle, clip):
    (out,) = run(
        "WarpfuseStylize", bundle=exact_bundle, images=clip, settings="size: 32x24", **{**KEYS, "prompt": "same"}
    )
    assert out.shape == (5, 24, 32, 3)


def test_an_opacity_is_left_out(run, exact_bundle, clip):
    keys = {**KEYS, "prompt": "same", "fusion": 0.0}
    seen = torch.cat((clip, torch.full((5, 64, 80, 1), 0.5)), dim=-1)
    assert torch.equal(run("WarpfuseStylize", bundle=exact_bundle, images=seen, **keys)[0], clip)


@pytest.mark.parametrize(
    "settings, text",
    [
        ("flow: [", "settings: "),
        ("ink", "settings: expected keys and values"),
        ("prompt: noir", "settings: prompt is an input of the node"),
        ("flwo: dis", "did you mean 'flow'"),
        ("source: a.mp4", "source"),
    ],
)
def test_settings_that_cannot_be_are_told_in_a_line(run, exact_bundle, clip, settings, text):
    with pytest.raises(BadInput, match=text) as told:
        run("WarpfuseStylize", bundle=exact_bundle, images=clip, settings=settings, **KEYS)
    assert "\n" not in str(told.value)


def test_a_torn_bundle_is_refused_where_it_is_chosen(run, exact_bundle, tmp_path, monkeypatch):
    shutil.copytree(exact_bundle, tmp_path / "torn")
    (tmp_path / "torn" / "unet.onnx").write_bytes(b"torn")
    monkeypatch.setenv("WARPFUSE_BUNDLES", str(tmp_path))
    with pytest.raises(BundleError, match="torn or changed"):
        run("WarpfuseBundle", name="torn")


@pytest.mark.parametrize("node, more", [("WarpfuseStylize", {}), ("WarpfuseLive", {"stream": "stopped"})])
def test_an_interruption_ends_the_run_and_leaves_no_thread(run, runtime, exact_bundle, clip, node, more):
    import comfy.model_management as management

    run("WarpfuseLive", bundle=exact_bundle, images=clip, stream="other", **{**KEYS, "prompt": "same"})
    before = set(threading.enumerate())
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run(node, bundle=exact_bundle, images=clip, **{**KEYS, "prompt": "same"}, **more)
    assert set(threading.enumerate()) <= before
    assert run(node, bundle=exact_bundle, images=clip, **{**KEYS, "prompt": "same"}, **more)[0].shape == clip.shape


def test_threads_of_torch_are_given_back(run, exact_bundle, clip):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run("WarpfuseStylize", bundle=exact_bundle, images=clip, **{**KEYS, "prompt": "same"})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_progress_is_told_frame_by_frame_with_a_preview(run, exact_bundle, clip, monkeypatch):
    import comfy.utils

    told = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **_: told.append((value, total, preview))
    )
    run("WarpfuseStylize", bundle=exact_bundle, images=clip, **{**KEYS, "prompt": "same", "fusion": 0.0})
    assert [(value, total) for value, total, _ in told] == [(i, 5) for i in range(1, 6)]
    kind, picture, _ = told[2][2]
    assert kind == "JPEG" and np.array_equal(np.asarray(picture), pictures_of(clip)[2])


def test_a_stream_frame_by_frame_is_the_clip(run, bundle, clip):
    whole = run("WarpfuseStylize", bundle=bundle, images=clip, **KEYS)[0]
    single = [run("WarpfuseLive", bundle=bundle, images=clip[i : i + 1], stream="law 3", **KEYS)[0] for i in range(5)]
    assert torch.equal(torch.cat(single), whole)


def test_two_streams_do_not_mix(run, exact_bundle, clip):
    keys = {**KEYS, "prompt": "negative", "bundle": exact_bundle}
    alone = run("WarpfuseStylize", images=clip, **keys)[0]
    other = 1 - clip
    mixed = []
    for i in range(5):
        mixed.append(run("WarpfuseLive", images=clip[i : i + 1], stream="a", **keys)[0])
        run("WarpfuseLive", images=other[i : i + 1], stream="b", **keys)
    assert torch.equal(torch.cat(mixed), alone)
    one = []  # the control: under one name the two are one stream
    for i in range(5):
        one.append(run("WarpfuseLive", images=clip[i : i + 1], stream="c", **keys)[0])
        run("WarpfuseLive", images=other[i : i + 1], stream="c", **keys)
    assert not torch.equal(torch.cat(one), alone)


def test_a_setting_that_changes_holds_from_the_next_frame_on(run, exact_bundle, clip):
    keys = {**KEYS, "fusion": 0.0, "bundle": exact_bundle, "stream": "changing"}
    assert torch.equal(run("WarpfuseLive", images=clip[:1], **{**keys, "prompt": "same"})[0], clip[:1])
    turned = run("WarpfuseLive", images=clip[:1], **{**keys, "prompt": "negative"})[0]
    assert np.array_equal(pictures_of(turned)[0], 255 - pictures_of(clip)[0])


def test_a_setting_that_cannot_be_leaves_the_stream_as_it_was(run, exact_bundle, clip):
    keys = {**KEYS, "prompt": "negative", "bundle": exact_bundle}
    alone = run("WarpfuseStylize", images=clip, **keys)[0]
    first = run("WarpfuseLive", images=clip[:3], stream="typo", **keys)[0]
    with pytest.raises(BadInput, match="did you mean 'negative'"):
        run("WarpfuseLive", images=clip[3:], stream="typo", **{**keys, "prompt": "negativ"})
    rest = run("WarpfuseLive", images=clip[3:], stream="typo", **keys)[0]
    assert torch.equal(torch.cat((first, rest)), alone)


def test_a_setting_that_is_left_out_goes_back_to_its_default(run, exact_bundle, clip):
    """Fusion of the output alone, then the default again: what the graph is built with changes twice."""
    keys = {**KEYS, "prompt": "noisy", "bundle": exact_bundle, "images": clip}
    plain = run("WarpfuseLive", stream="plain", **keys)[0]
    other = run("WarpfuseLive", stream="turned", settings="stages: {fuse: {entry: 0, anchor: {exit: 0}}}", **keys)[0]
    assert not torch.equal(plain, other)
    assert torch.equal(run("WarpfuseLive", stream="turned", **keys)[0], plain)


def test_a_stream_batch_shows_the_source_until_the_first_picture_is_ready(run, exact_bundle, clip):
    keys = {**KEYS, "prompt": "negative", "fusion": 0.0, "steps": 3, "bundle": exact_bundle}
    (out,) = run("WarpfuseLive", images=clip, stream="batch", settings="stages: {predict: {stream: true}}", **keys)
    assert torch.equal(out[:2], clip[:2])
    assert all(np.array_equal(a, 255 - b) for a, b in zip(pictures_of(out[2:]), pictures_of(clip), strict=False))


def test_the_live_node_always_runs(runtime):
    from warpfuse.comfy.nodes import WarpfuseLive

    same = WarpfuseLive.fingerprint_inputs(stream="a")
    assert same != same  # NaN: ComfyUI compares with what it was


def test_idle_streams_are_closed_and_others_stay(exact_bundle, clip):
    from warpfuse.comfy.streams import LiveStreams

    now = [0.0]
    streams = LiveStreams(lambda: now[0])
    keys = {**KEYS, "prompt": "same", "bundle": exact_bundle}
    before = set(threading.enumerate())
    for second, name in enumerate("ab"):
        now[0] = float(second)
        streams.restyle(name, clip, keys, lambda done, rgb: None)
    streams.close_idle(2.0)
    assert len(streams) == 2
    now[0] = 2.5
    streams.close_idle(2.0)
    assert len(streams) == 1
    streams.close()
    assert len(streams) == 0 and set(threading.enumerate()) <= before
