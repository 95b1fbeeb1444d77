"""Graphs whose frames are turned, padded and scaled. The style is the identity or the negative, so laws are exact."""

import numpy as np
import pytest
from PIL import Image

import warpfuse
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import run
from warpfuse.stages.sources import open_source, probe

SIZE = (64, 48)


def picture(size=SIZE):
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    return np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), 3 * x % 256], -1).astype(np.uint8)


@pytest.fixture
def stills(tmp_path):
    """Three pictures in a row, of 64x48; their name as a source."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(np.roll(picture(), 5 * number, 1)).save(tmp_path / "in" / f"{number}.png")
    return str(tmp_path / "in" / "%d.png")


def restyled(bundle, source, out, **keys):
    """The pictures of a run over a file."""
    asked = {
        "bundle": bundle,
        "prompt": "same",
        "fusion": 0,
        "size": SIZE,
        "source": source,
        "sinks": [str(out / "%d.png")],
    }
    run(validate({**asked, **keys}))
    return [np.asarray(Image.open(out / f"{number}.png")) for number in range(3)]


def pushed(bundle, pictures, **keys):
    with warpfuse.Pipeline(**{"bundle": bundle, "prompt": "same", "fusion": 0, "size": SIZE, **keys}) as pipeline:
        return [pipeline.push(one) for one in pictures]


TURNED = {
    (0, True): lambda rgb: rgb[:, ::-1],
    (180, False): lambda rgb: rgb[::-1, ::-1],
    (180, True): lambda rgb: rgb[::-1],
}


@pytest.mark.parametrize("rotate, mirror", TURNED)
def test_file_and_push_are_turned_alike(exact_bundle, stills, tmp_path, rotate, mirror):
    raw = [np.roll(picture(), 5 * number, 1) for number in range(3)]
    expected = [TURNED[rotate, mirror](rgb) for rgb in raw]
    assert np.array_equal(restyled(exact_bundle, stills, tmp_path / "out", rotate=rotate, mirror=mirror), expected)
    assert np.array_equal(pushed(exact_bundle, raw, rotate=rotate, mirror=mirror), expected)


@pytest.mark.parametrize("rotate, k", [(90, -1), (270, 1)])
def test_a_quarter_turn_gives_the_run_the_other_shape(exact_bundle, stills, tmp_path, rotate, k):
    raw = [np.roll(picture(), 5 * number, 1) for number in range(3)]
    expected = [np.rot90(rgb, k) for rgb in raw]
    assert np.array_equal(restyled(exact_bundle, stills, tmp_path / "out", rotate=rotate, size=None), expected)
    assert np.array_equal(pushed(exact_bundle, raw, rotate=rotate, size=None), expected)


@pytest.mark.parametrize("prompt", ["same", "negative"])
def test_bars_are_black_whatever_the_style(exact_bundle, stills, tmp_path, prompt):
    """The negative of black is white: what the networks make of bars is seen nowhere."""
    keys = {"size": (96, 48), "fit": "letterbox", "prompt": prompt}
    for shown in (
        restyled(exact_bundle, stills, tmp_path / "out", **keys)[0],
        pushed(exact_bundle, [picture()], **keys)[0],
    ):
        assert shown.shape == (48, 96, 3)
        assert not shown[:, :16].any() and not shown[:, 80:].any()
        assert np.array_equal(shown[:, 16:80], picture() if prompt == "same" else 255 - picture())


def test_a_mirror_takes_its_turn_between_two_frames(exact_bundle):
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="same", fusion=0.8, size=SIZE) as pipeline:
        pipeline.push(picture())
        assert np.array_equal(pipeline.push(picture()), picture())
        pipeline.update(mirror=True)
        assert np.array_equal(pipeline.push(picture()), picture()[:, ::-1]), "nothing of the other side is fused in"
        with pytest.raises(ConfigError, match="rotate cannot change while frames flow"):
            pipeline.update(rotate=180)


def test_the_output_has_its_own_size_and_the_networks_theirs(exact_bundle, stills, tmp_path):
    """A shape that the networks do not take: they see it squeezed, and the output is right."""
    keys = {"size": (64, 64), "output": (144, 96), "fit": "fill"}
    film = tmp_path / "out.mp4"
    run(
        validate(
            {"bundle": exact_bundle, "prompt": "same", "fusion": 0, "source": stills, "sinks": [str(film)], **keys}
        )
    )
    assert (probe(str(film)).width, probe(str(film)).height) == (144, 96)
    expected = np.asarray(
        Image.fromarray(picture()).resize((144, 96), Image.LANCZOS, box=(0, 8 / 3, 64, 48 - 8 / 3)), float
    )
    (shown,) = pushed(exact_bundle, [picture()], **keys)
    assert shown.shape == (96, 144, 3)
    assert np.abs(shown[..., :2] - expected[..., :2]).mean() < 4
    assert np.abs(open_source(str(film)).read().rgb[..., :2] - expected[..., :2]).mean() < 8


def test_without_a_size_the_output_gives_the_networks_their_shape(exact_bundle):
    (shown,) = pushed(exact_bundle, [picture()], size=None, output=(128, 128))
    assert shown.shape == (128, 128, 3)


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "fill"])
def test_a_drawn_mask_of_the_sources_shape_lies_over_the_source(exact_bundle, stills, tmp_path, fit):
    """Left half white: there the negative is shown. In the frame that half is where the source's left half is."""
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    keys = {"size": (96, 48), "fit": fit, "prompt": "negative"}
    keys["mask"] = {"kind": "file", "of": str(tmp_path / "mask.png"), "feather_px": 0}
    (masked,), (plain,), (negative,) = (
        pushed(exact_bundle, [picture()], **{**keys, **more})
        for more in ({}, {"prompt": "same", "mask": "off"}, {"mask": "off"})
    )
    assert np.array_equal(masked[:, :44], negative[:, :44])
    assert np.array_equal(masked[:, 52:], plain[:, 52:])


@pytest.mark.parametrize(
    "keys, line",
    [
        ({"rotate": 45}, "rotate: .*0, 90, 180 or 270"),
        ({"fit": "crop"}, "fit: .*'fill', 'letterbox' or 'stretch'"),
        ({"output": "wide"}, "output: 'wide' is no size"),
        ({"mirror": "sideways"}, "mirror: "),
    ],
)
def test_a_mistake_is_told_in_one_line(keys, line):
    with pytest.raises(ConfigError, match=line):
        validate(keys)
