"""Style images through a whole graph: exactly off, live in scale and picture, once a picture, apart between streams."""

import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image
from support import pipelines
from support.counted_calls import counted_calls
from support.pipelines import far

import warpfuse
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import run
from warpfuse.stages.errors import ImageError
from warpfuse.stages.sources import open_source

SIZE = "64x64"
CHANGED_AT = 3


@pytest.fixture
def bundles(image_bundles):
    return image_bundles


@pytest.fixture(scope="module")
def pictures():
    source = open_source(f"pattern:{SIZE}@25,frames=6")
    return [source.read().rgb for _ in range(6)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two pictures of styles."""
    folder, found = tmp_path_factory.mktemp("styles"), {}
    for number, name in enumerate(("red", "rings")):
        y, x = np.mgrid[:80, :100] / 80
        rgb = [np.full_like(x, 0.9), y, 0.1 * x] if number == 0 else [np.cos(40 * np.hypot(x, y)) ** 2, x, 1 - y]
        found[name] = str(folder / f"{name}.png")
        Image.fromarray((np.stack(rgb, -1) * 255).astype(np.uint8)).save(found[name])
    return found


def styled(bundle, pictures, images=None, stream=False, change=None, **keys):
    """Every picture; `change` of the images is made before picture CHANGED_AT."""
    options = {"size": (64, 64), "steps": 2, "strength": 0.7, "fusion": 0.5, **keys}
    options["stages"] = {"predict": {"stream": stream}}
    changes = None if change is None else {CHANGED_AT: {"images": change}}
    return pipelines.styled(pictures, changes, bundle=bundle, images=images or {}, **options)


@pytest.mark.parametrize("stream", [False, True])
def test_off_is_the_bundle_without(bundles, pictures, files, stream):
    plain = styled(bundles["plain"], pictures, stream=stream)
    assert far(styled(bundles["shown"], pictures, stream=stream), plain) == 0
    off = {"look": {"picture": files["red"], "scale": 0}, "mood": {"picture": files["rings"], "scale": 0}}
    assert far(styled(bundles["shown"], pictures, off, stream), plain) == 0
    assert far(styled(bundles["shown"], pictures, {"look": files["red"]}, stream), plain) > 3, "the control: it does"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("key", ["scale", "picture", "none before"])
def test_a_change_is_there_from_exactly_the_next_frame_on(bundles, pictures, files, stream, key):
    """Each frame on its own. In a stream batch the call with the first new frame holds the last old one."""
    before = {"look": {"picture": files["red"], "scale": 0.4}}
    after = {"scale": {"scale": 1.2}, "picture": {"picture": files["rings"]}}
    changed = {"look": {**before["look"], **after.get(key, {})}}
    if key == "none before":
        before = {}
    old = styled(bundles["shown"], pictures, before, stream, fusion=0)
    new = styled(bundles["shown"], pictures, changed, stream, fusion=0)
    told = {"look": after.get(key, changed["look"])}
    found = styled(bundles["shown"], pictures, before, stream, told, fusion=0)
    assert far(found, [*old[:CHANGED_AT], *new[CHANGED_AT:]]) == 0
    assert all(far([a], [b]) > 0 for a, b in zip(old, new, strict=True))


def test_a_number_is_a_scale_and_a_word_a_picture(bundles, pictures, files):
    whole = styled(bundles["shown"], pictures[:2], {"look": {"picture": files["red"], "scale": 0.6}})
    assert far(styled(bundles["shown"], pictures[:2], {"look": files["red"]}), whole) == 0
    found = styled(bundles["shown"], pictures, {"look": files["red"]}, change={"look": 1.3}, fusion=0)
    wanted = styled(bundles["shown"], pictures, {"look": {"picture": files["red"], "scale": 1.3}}, fusion=0)
    assert far(found[CHANGED_AT:], wanted[CHANGED_AT:]) == 0 < far(found[:CHANGED_AT], wanted[:CHANGED_AT])


def test_style_and_layout_have_scales_of_their_own(bundles, pictures, files):
    def shown(**scales):
        return styled(bundles["shown"], pictures[:1], {"look": {"picture": files["red"], **scales}})

    nothing = styled(bundles["plain"], pictures[:1])
    assert far(shown(scale=0, style=0, layout=0), nothing) == 0
    apart = [shown(scale=0, style=1.5), shown(scale=0, layout=1.5), shown(scale=1.5, style=0, layout=0)]
    assert all(far(one, nothing) > 0 for one in apart)
    assert far(apart[0], apart[1]) > 0 < far(apart[0], apart[2])
    assert far(shown(scale=1.5), shown(scale=0.3, style=1.5, layout=1.5)) > 0, "the rest follows the scale"


def test_the_network_of_an_image_runs_once_a_picture(bundles, pictures, files, monkeypatch):
    calls = counted_calls(monkeypatch)
    styled(bundles["shown"], pictures)
    assert "image_0" not in calls and calls["unet"] == 2 * len(pictures), "none is asked for"
    both = {"look": files["red"], "mood": files["red"]}
    styled(bundles["shown"], pictures, both, change={"look": 0.1})
    assert calls["image_0"] == 1, "one encoder, one picture, two images of it"
    styled(bundles["shown"], pictures, {"look": files["red"]}, change={"look": files["rings"]})
    assert calls["image_0"] == 3


def test_a_picture_that_is_written_anew_is_seen_with_the_next_change(bundles, pictures, files, tmp_path):
    file = tmp_path / "now.png"
    with warpfuse.Pipeline(
        bundle=bundles["shown"], size=(64, 64), steps=2, strength=0.7, fusion=0, images={"look": files["red"]}
    ) as pipeline:
        red = pipeline.push(pictures[0])
        for name in ("rings", "red"):
            shutil.copyfile(files[name], file)
            pipeline.update(images={"look": str(file)})
            found = pipeline.push(pictures[0])
            assert (far([found], [red]) == 0) == (name == "red")
        file.unlink()
        pipeline.update(images={"look": 0.6}, prompt="ink")
        assert far([pipeline.push(pictures[0])], [red]) == 0, "what is gone is what it was"


def test_streams_with_and_without_share_calls_and_have_the_bytes_they_have_alone(bundles, files, tmp_path):
    told = {
        "red": {"images": {"look": files["red"]}},
        "rings": {"images": {"look": {"picture": files["rings"], "scale": 0.9}, "mood": files["red"]}, "seed": 3},
        "none": {"prompt": "oil"},
    }
    keys = {name: {"source": f"pattern:{SIZE}@25,frames={6 + n}", "steps": 2, "prompt": "ink", **own}
            for n, (name, own) in enumerate(told.items())}  # fmt: skip
    streams = {name: {**own, "sinks": [str(tmp_path / f"{name}.mkv")]} for name, own in keys.items()}
    stats = run(read_streams({"bundle": bundles["shown"], "streams": streams, "gather_ms": 50}))
    shared = stats.networks["unet"]
    assert shared["calls"] < shared["rows"], "frames of several streams were in one call"
    for name, own in keys.items():
        run(validate({**own, "bundle": bundles["shown"], "sinks": [str(tmp_path / "alone.mkv")]}))
        assert _bytes(tmp_path / f"{name}.mkv") == _bytes(tmp_path / "alone.mkv"), name
    run(validate({**keys["none"], **told["red"], "bundle": bundles["shown"], "sinks": [str(tmp_path / "alone.mkv")]}))
    assert _bytes(tmp_path / "none.mkv") != _bytes(tmp_path / "alone.mkv"), "the control: with one it is another"


def test_in_processes_of_their_own_the_bytes_are_the_same(bundles, files, tmp_path):
    outputs = [tmp_path / f"{workers}.mkv" for workers in ("one", "stages")]
    for output in outputs:
        run(validate({
            "source": f"pattern:{SIZE}@25,frames=4", "sinks": [str(output)], "bundle": bundles["shown"], "steps": 2,
            "images": {"look": files["red"]}, "workers": output.stem,
        }))  # fmt: skip
    assert _bytes(outputs[0]) == _bytes(outputs[1])


def test_what_cannot_be_asked_for_is_one_line(bundles, pictures, files, exact_bundle, tmp_path):
    for bundle in (bundles["plain"], str(exact_bundle)):
        with pytest.raises(ImageError, match=r"has no style image\. Export it again: .* --style-image look="):
            styled(bundle, pictures[:1], {"look": files["red"]}, steps=1)
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with warpfuse.Pipeline(bundle=bundles["shown"], size=(64, 64), steps=2, images={"look": files["red"]}) as pipeline:
        first = pipeline.push(pictures[0])
        for keys, says in (
            ({"lok": files["red"]}, r"no style image called 'lok'; did you mean 'look'\?"),
            ({"mood": 0.5}, r"images\.mood: no picture yet: give images\.mood\.picture"),
            ({"look": str(tmp_path / "none.png")}, r"images\.look\.picture: .*none\.png: No such file"),
            ({"look": str(torn)}, r"torn\.png: it holds no picture that can be read"),
            ({"look": 9}, "less than or equal to 2"),
            ({"look": {"scal": 1}}, "unknown key 'images.look.scal'; did you mean 'images.look.scale'"),
        ):
            with pytest.raises((ImageError, ConfigError), match=says) as caught:
                pipeline.update(images=keys)
            assert "\n" not in str(caught.value)
        assert far([pipeline.push(pictures[0])], [first]) < 255


def _bytes(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
