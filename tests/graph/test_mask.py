"""Graphs that style parts of the picture alone: laws with drawn masks, to the bit."""

import contextlib

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

import warpfuse
from warpfuse.engine.bundle_writing import write_map_bundle
from warpfuse.engine.errors import BadInput
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.live_settings import NeedsRestart
from warpfuse.graph.run import open_run, run
from warpfuse.stages.sources import open_source

SIZE = (64, 48)
FRAMES = 10
WAYS = [
    {"fusion": 0},
    {"fusion": 0.8},
    {"fusion": 0.8, "stages": {"fuse": {"reference": "latent"}}},
    {"fusion": 0.8, "stages": {"fuse": {"reference": "output"}}},
    {"fusion": 0.8, "steps": 3, "stages": {"predict": {"stream": True}}},
    {"fusion": 0, "steps": 4, "stages": {"predict": {"stream": True}}},
]


def moving(number):
    """A textured picture, moved by two pixels a frame."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    x = x + 2 * number
    wave = np.sin(x / 5) + np.sin(y / 4 + x / 9)
    return np.stack([wave * 50 + 128, np.cos(x / 7) * 60 + 120, np.sin(y / 6) * 70 + 128], -1).astype(np.uint8)


def drawn(folder, mask_of):
    """A folder of numbered masks, as `mask.of` takes it. mask_of: number -> uint8 [h, w]"""
    folder.mkdir()
    for number in range(FRAMES):
        cv2.imwrite(str(folder / f"{number:04d}.png"), mask_of(number))
    return str(folder / "%04d.png")


def full(level):
    return lambda number: np.full(SIZE[::-1], level, np.uint8)


def bar(number):
    """White from left to right, four columns further with every frame."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[:, 4 * number : 4 * number + 16] = 255
    return mask


def styled(bundle, mask=None, **keys):
    """The pictures of ten pushes, uint8."""
    asked = {"bundle": bundle, "prompt": "noisy", "size": SIZE, **keys, **({} if mask is None else {"mask": mask})}
    with warpfuse.Pipeline(**asked) as pipeline:
        shown = [pipeline.push(moving(n)) for n in range(FRAMES)] + pipeline.drain()
    return [one for one in shown if one is not None]


@pytest.mark.parametrize("keys", WAYS)
def test_a_mask_of_ones_is_the_picture_without_a_mask_to_the_bit(exact_bundle, tmp_path, keys):
    mask = {"kind": "file", "of": drawn(tmp_path / "ones", full(255)), "feather_px": 5}
    assert np.array_equal(styled(exact_bundle, mask, **keys), styled(exact_bundle, **keys))


@pytest.mark.parametrize("keys", WAYS)
def test_a_mask_of_zeros_is_the_source_to_the_bit(exact_bundle, tmp_path, keys):
    mask = {"kind": "file", "of": drawn(tmp_path / "zeros", full(0)), "feather_px": 5}
    shown = styled(exact_bundle, mask, **keys)
    assert np.array_equal(shown, [moving(n) for n in range(FRAMES)])
    assert not np.array_equal(shown, styled(exact_bundle, **keys)), "control"


@pytest.mark.parametrize("keys", WAYS)
def test_a_moving_mask_leaves_no_trail(exact_bundle, tmp_path, keys):
    """Every picture is made of the source and of what is styled without a mask. The control is a mask inside the loop:
    what was shown as the source is warped and fused into the style."""
    mask = {"kind": "file", "of": drawn(tmp_path / "bar", bar), "feather_px": 0}
    shown, whole = styled(exact_bundle, mask, **keys), styled(exact_bundle, **keys)
    for number in range(FRAMES):
        inside = bar(number)[..., None] == 255
        assert np.array_equal(shown[number], np.where(inside, whole[number], moving(number)))
    if keys == {"fusion": 0.8}:
        trail = masked_inside_the_loop(exact_bundle)
        inside = bar(FRAMES - 1) == 255
        assert np.abs(trail.astype(int) - whole[-1])[inside].max() > 10, "control"


def masked_inside_the_loop(bundle):
    """The last picture where each one is masked before it comes back: a pipeline whose past is what was shown."""
    from warpfuse.graph.plan import planner

    whole = planner.pass_frame

    def inside(call, config, calls, **options):
        def spliced(stage, about, **asked):
            if stage == "warp":
                asked["styled"] = asked["styled"]._replace(stage="apply_mask")
            return call(stage, about, **asked)

        whole(spliced, config, calls, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "pass_frame", inside)
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            mask = {"kind": "file", "of": drawn(Path(folder) / "bar", bar), "feather_px": 0}
            return styled(bundle, mask, fusion=0.8)[-1]


def test_a_mask_is_changed_while_frames_flow(exact_bundle, tmp_path):
    mask = {"kind": "file", "of": drawn(tmp_path / "bar", bar), "feather_px": 0}
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="negative", size=SIZE, fusion=0, mask=mask) as pipeline:
        pushed = []
        for number, change in enumerate([{}, {"invert": True}, {"amount": 0.0}, {"amount": 0.5, "feather_px": 4}]):
            pipeline.update(mask=change)
            pushed.append(pipeline.push(moving(number)))
        with pytest.raises(NeedsRestart, match=r"mask\.kind"):
            pipeline.update(mask="off")
        with pytest.raises(NeedsRestart, match=r"mask\.kind"):
            pipeline.update(mask={"of": "another.png"})
        with pytest.raises(BadInput, match=r"mask\.feather_px"):
            pipeline.update(mask={"feather_px": -1})
    inside = [bar(number)[..., None] == 255 for number in range(4)]
    source, negative = [moving(n) for n in range(4)], [255 - moving(n) for n in range(4)]
    assert np.array_equal(pushed[0], np.where(inside[0], negative[0], source[0]))
    assert np.array_equal(pushed[1], np.where(inside[1], source[1], negative[1]))
    assert np.array_equal(pushed[2], negative[2])
    taps = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1]) / 256  # the binomial blur of four pixels each way
    blurred = cv2.sepFilter2D(1 - (bar(3) / 255.0), -1, taps, taps, borderType=cv2.BORDER_REPLICATE)
    m = 1 - 0.5 * (1 - blurred[..., None])
    assert np.abs(pushed[3] - (m * negative[3] + (1 - m) * source[3])).max() <= 1


def test_a_frame_shown_as_it_was_is_shown_in_whole(exact_bundle, tmp_path):
    """Where the source has moved on, its things would be shown twice."""
    mask = {"kind": "file", "of": drawn(tmp_path / "bar", bar), "feather_px": 0}
    keys = {"bundle": exact_bundle, "prompt": "negative", "size": SIZE, "pace": {"still": 0.5}, "mask": mask}
    with warpfuse.Pipeline(**keys) as pipeline:
        first = pipeline.push(moving(0))
        changed = moving(0)
        changed[30:, 40:] //= 2  # outside the bar
        again = pipeline.push(changed)
        stats = pipeline.close()
    assert stats.frames.held == 1 and np.array_equal(first, again)


def test_a_warped_frame_has_the_source_of_its_own_time(exact_bundle, tmp_path):
    mask = {"kind": "file", "of": drawn(tmp_path / "bar", bar), "feather_px": 0}
    shown = styled(exact_bundle, mask, pace={"skip": 2}, prompt="negative")
    for number in range(FRAMES):
        outside = bar(number) == 0
        assert np.array_equal(shown[number][outside], moving(number)[outside])


def test_processes_show_the_same_bytes(exact_bundle, tmp_path):
    network = map_bundle(tmp_path / "bright")
    masks = {"bar": {"kind": "file", "of": drawn(tmp_path / "bar", bar)}, "net": network}
    keys = {"bundle": exact_bundle, "size": SIZE, "source": "pattern:64x48@25,frames=8", "prompt": "noisy", "steps": 2}
    for name, mask in masks.items():
        for workers in ("one", "stages"):
            sink = str(tmp_path / f"{name}-{workers}.mkv")
            stages = {"predict": {"stream": True}}
            run(validate({**keys, "mask": mask, "sinks": [sink], "workers": workers, "stages": stages}))
        one, apart = ((tmp_path / f"{name}-{workers}.mkv").read_bytes() for workers in ("one", "stages"))
        assert _pictures(tmp_path / f"{name}-one.mkv") == _pictures(tmp_path / f"{name}-stages.mkv") and one and apart


def _pictures(path):
    source = open_source(str(path))
    shown = [frame.rgb.tobytes() for frame in iter(source.read, None)]
    source.close()
    return shown


def map_bundle(folder, channels=1):
    """A bundle of kind map that finds what is bright: the mean of the channels, at any size."""
    reduced = helper.make_node("ReduceMean", ["rgb"], ["map"], axes=[1], keepdims=1)
    graph = helper.make_graph(
        [reduced],
        "bright",
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 1, "h", "w"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    sizes = {"multiple": 8, "minimum": 8, "default_long_side": 1024}
    about = {"name": "bright", "channels": channels, "sizes": sizes, "networks": {"map": "map.onnx"}}
    write_map_bundle(folder, {"map.onnx": model.SerializeToString()}, licence="none", source="test", **about)
    return str(folder)


def test_the_mask_of_a_network_is_its_map(exact_bundle, tmp_path):
    mask = {"kind": "network", "of": map_bundle(tmp_path / "bright"), "feather_px": 0, "steady": 0}
    shown = styled(exact_bundle, mask, prompt="negative", fusion=0)
    for number in range(FRAMES):
        source = moving(number) / 255
        m = np.clip((source.mean(-1, keepdims=True) - 0.5) * (1 + 1 / 64) + 0.5, 0, 1)
        assert np.abs(shown[number] - 255 * (m * (1 - source) + (1 - m) * source)).max() <= 1


@pytest.mark.parametrize("keys", [*WAYS, {"pace": {"skip": 2}}])
def test_the_mask_of_a_network_goes_with_every_way_to_style(exact_bundle, tmp_path, keys):
    assert len(styled(exact_bundle, map_bundle(tmp_path / "bright"), **keys)) == FRAMES


def test_mistakes_are_told_in_one_line(exact_bundle, tmp_path):
    keys = {"bundle": exact_bundle, "source": "pattern:64x48@25,frames=4", "sinks": ["null:"]}
    from warpfuse.graph.plan.checks import check_early

    for mask, told in [
        ({"kind": "file", "of": str(tmp_path / "no.png")}, r"mask\.of: .*no\.png"),
        ({"kind": "file", "of": "camera:0"}, "got a live source"),
        ("nobody", "no bundle called 'nobody'"),
        ("embedded-flow", "kind 'flow', needed here is one of kind 'map'"),
        ({"kind": "network"}, "needs `of`"),
        ({"kind": "network", "of": "x", "feather": 3}, r"did you mean 'mask\.feather_px'"),
    ]:
        with pytest.raises(BadInput, match=told):
            check_early(validate({**keys, "mask": mask}))


def test_short_forms_are_the_keys_they_stand_for():
    assert validate({"mask": "person"}).mask == validate({"mask": {"kind": "network", "of": "person"}}).mask
    assert validate({"mask": "person"}).mask == validate({"mask": {"of": "person"}}).mask
    assert validate({"mask": "file:a/b.png"}).mask == validate({"mask": {"kind": "file", "of": "a/b.png"}}).mask
    assert validate({"mask": False}).mask == validate({"mask": "off"}).mask == validate({}).mask


@pytest.mark.parametrize("keys", [{}, {"output": (128, 96), "fit": "letterbox"}])
def test_a_transparent_rest_gives_the_mask_as_alpha(exact_bundle, tmp_path, keys):
    """The colours are those without a mask; the alpha is the drawing, to the bit, and 0 in bars."""
    mask = {"kind": "file", "of": drawn(tmp_path / "bars", bar), "feather_px": 0}
    shown = np.array(styled(exact_bundle, {**mask, "rest": "transparent"}, fusion=0, **keys))
    assert np.array_equal(shown[..., :3], styled(exact_bundle, fusion=0, **keys))
    if not keys:
        assert np.array_equal(shown[..., 3], [bar(n) for n in range(FRAMES)])
    assert 0 == shown[..., 3].min() < shown[..., 3].max() == 255


def test_a_rest_of_the_background_is_that_colour(exact_bundle, tmp_path):
    mask = {"kind": "file", "of": drawn(tmp_path / "bars", bar), "feather_px": 0, "rest": "background"}
    shown = np.array(styled(exact_bundle, mask, fusion=0, background="#00ff00"))
    white = np.array([bar(n) for n in range(FRAMES)])[..., None] == 255
    assert np.array_equal(shown, np.where(white, styled(exact_bundle, fusion=0), np.array([0, 255, 0], np.uint8)))


def test_transparent_is_decided_at_the_start(exact_bundle, tmp_path):
    mask = {"kind": "file", "of": drawn(tmp_path / "bars", bar), "feather_px": 0}
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="same", fusion=0, size=SIZE, mask=mask) as pipeline:
        pipeline.push(moving(0))
        pipeline.update(mask={"rest": "background"})
        assert not pipeline.push(moving(1))[bar(1) == 0].any()
        with pytest.raises(NeedsRestart, match="transparent"):
            pipeline.update(mask={"rest": "transparent"})


def test_a_snapshot_of_a_transparent_run_has_its_alpha(exact_bundle, tmp_path):
    mask = {"kind": "file", "of": drawn(tmp_path / "bars", bar), "feather_px": 0}
    keys = {"source": f"pattern:{SIZE[0]}x{SIZE[1]}@25,frames=3", "bundle": exact_bundle, "prompt": "same"}
    for rest, planes in (("transparent", 4), ("source", 3)):
        written = {"fusion": 0, "sinks": [str(tmp_path / f"{rest}%d.png")], "workers": "one"}
        with contextlib.ExitStack() as undo:
            under_way = open_run(validate({**keys, **written, "mask": {**mask, "rest": rest}}), undo)
            under_way.start()
            under_way.wait()
            png = under_way.snapshot()
        picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(picture, cv2.imread(str(tmp_path / f"{rest}2.png"), cv2.IMREAD_UNCHANGED))
        assert picture.shape == (SIZE[1], SIZE[0], planes)


def test_a_run_with_a_transparent_rest_writes_it_and_refuses_other_sinks_first(exact_bundle, tmp_path):
    mask = {"kind": "file", "of": drawn(tmp_path / "bars", bar), "feather_px": 0, "rest": "transparent"}
    keys = {
        "source": f"pattern:{SIZE[0]}x{SIZE[1]}@25,frames=3",
        "bundle": exact_bundle,
        "prompt": "same",
        "mask": mask,
    }
    run(validate({**keys, "fusion": 0, "sinks": [str(tmp_path / "out" / "%d.png")]}))
    alpha = cv2.imread(str(tmp_path / "out" / "2.png"), cv2.IMREAD_UNCHANGED)[..., 3]
    assert np.array_equal(alpha, bar(2))
    with pytest.raises(BadInput, match=r"out.mp4: mask.rest is transparent"):
        run(validate({**keys, "sinks": [str(tmp_path / "out.mp4")]}))
    assert not (tmp_path / "out.mp4").exists()
