"""Law: a picture of the source lies in the frame where FFmpeg's own filters put it, from whatever source it came."""

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from PIL import Image, ImageFilter

from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.geometry.framing import Framing
from warpfuse.stages.sources import open_source
from warpfuse.stages.transfer.fit_output import FitOutput

FIT = {
    "fill": "scale={w}:{h}:force_original_aspect_ratio=increase,crop={w}:{h}",
    "letterbox": "scale={w}:{h}:force_original_aspect_ratio=decrease,pad={w}:{h}:(ow-iw)/2:(oh-ih)/2",
    "stretch": "scale={w}:{h}",
}
TURN = {0: "null", 90: "transpose=clock", 180: "hflip,vflip", 270: "transpose=cclock"}
SOURCE = (120, 80)


def picture(size=SOURCE):
    """Slow waves, so that scalers agree, with a corner that tells where up and left are."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    waves = np.stack([np.sin(x / 17), np.sin(y / 13), np.cos((x + 2 * y) / 23)], -1)
    rgb = (128 + 90 * waves).astype(np.uint8)
    rgb[: size[1] // 4, : size[0] // 4] //= 3
    return rgb


def filtered(rgb, chain):
    """The picture as FFmpeg's filters make it."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    graph = Graph()
    ends = [graph.add_buffer(width=rgb.shape[1], height=rgb.shape[0], format="rgb24", time_base="1/25")]
    for part in [*chain.split(","), "format=rgb24"]:
        name, _, options = part.partition("=")
        ends.append(graph.add(name, options or None))
    graph.link_nodes(*ends, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull().to_ndarray()


def near(one, other):
    return one.shape == other.shape and np.abs(one.astype(int) - other).mean() < 2.0


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    path = tmp_path_factory.mktemp("still") / "still.png"
    Image.fromarray(picture()).save(path)
    return str(path)


@pytest.mark.parametrize("fit", FIT)
@pytest.mark.parametrize("rotate", TURN)
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("size", [(96, 64), (64, 64), (132, 48)])
def test_a_frame_is_what_ffmpegs_filters_make_of_the_picture(still, size, mirror, rotate, fit):
    framing = Framing(SOURCE, size, size, rotate, fit)
    raw = open_source(still, size=framing.asked).read().rgb
    frame = framing(raw, mirror=mirror)
    chain = [TURN[rotate], *["hflip"] * mirror, FIT[fit].format(w=size[0], h=size[1])]
    expected = filtered(picture(), ",".join(chain))
    if frame.shape != expected.shape:  # of a stretched picture the networks' own scaler does the rest
        assert fit == "stretch"
        frame = filtered(frame, "scale={}:{}".format(*size))
    assert near(frame, expected)
    assert not near(filtered(frame, "hflip"), expected), "control: the test sees a turn"


@pytest.mark.parametrize("fit", FIT)
@pytest.mark.parametrize("rotate", [0, 90])
def test_a_pushed_picture_lies_as_one_of_a_file_does(still, rotate, fit):
    """A source scales by itself; what is pushed comes as it is."""
    framing = Framing(SOURCE, (64, 64), (64, 64), rotate, fit)
    frames = [framing(rgb) for rgb in (open_source(still, size=framing.asked).read().rgb, picture())]
    pushed, read = (filtered(frame, "scale=64:64") for frame in frames)
    assert near(pushed, read)


def test_a_picture_that_fits_is_not_touched():
    rgb = picture()
    assert np.shares_memory(Framing(SOURCE, SOURCE, SOURCE)(rgb), rgb)


def test_a_shape_that_differs_by_rounding_gets_no_bars():
    whole = Framing((1366, 768), (512, 288), (512, 288), 0, "letterbox").content((512, 288))
    assert (whole.width, whole.height) == (512, 288)
    narrow = Framing((1024, 768), (512, 288), (512, 288), 0, "letterbox").content((512, 288))
    assert (narrow.left, narrow.top, narrow.width, narrow.height) == (64, 0, 384, 288)


@pytest.mark.parametrize("fit", FIT)
def test_squeezed_for_the_networks_the_output_has_the_right_shape(still, fit):
    """Networks that take 64x64 alone, and an output of 144x72."""
    framing = Framing(SOURCE, (64, 64), (144, 72), 0, fit)
    seen = filtered(framing(open_source(still, size=framing.asked).read().rgb), "scale=64:64")
    shown = FitOutput(framing)(RawFrame(Stamp(0, 0), seen)).rgb
    expected = filtered(picture(), FIT[fit].format(w=144, h=72))
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 4


def test_the_output_is_nearer_to_a_large_picture_than_a_bilinear_one():
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)))
    small = Image.fromarray(large).resize((32, 32), Image.Resampling.BOX)
    shown = FitOutput(Framing((32, 32), (32, 32), (96, 96)))(RawFrame(Stamp(0, 0), np.asarray(small))).rgb
    bilinear = np.asarray(small.resize((96, 96), Image.Resampling.BILINEAR))
    assert np.square(shown - large.astype(float)).mean() < 0.6 * np.square(bilinear - large.astype(float)).mean()


def test_bars_are_black_and_nothing_bleeds_into_them():
    framing = Framing((32, 32), (64, 32), (128, 64), 0, "letterbox")
    painted = FitOutput(framing)(RawFrame(Stamp(0, 0), np.full((32, 64, 3), 200, np.uint8))).rgb
    assert (painted[:, :32] == 0).all() and (painted[:, 96:] == 0).all()
    assert (painted[:, 32:96] == 200).all()


def test_a_phones_rotation_comes_before_the_runs_own(tmp_path: Path):
    """What a file's display matrix says is done first, as FFmpeg does it; `rotate` turns that picture."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("no ffmpeg program: apt-get install ffmpeg")

    def ffmpeg(*arguments):
        subprocess.run([program, "-v", "error", "-y", *map(str, arguments)], check=True)

    flat, turned = tmp_path / "flat.mp4", tmp_path / "turned.mp4"
    Image.fromarray(picture((128, 96))).save(tmp_path / "one.png")
    ffmpeg("-i", tmp_path / "one.png", "-c:v", "libx264", "-crf", 4, "-pix_fmt", "yuv420p", flat)
    try:
        ffmpeg("-display_rotation", 90, "-i", flat, "-c", "copy", turned)
    except subprocess.CalledProcessError:  # before FFmpeg 6
        ffmpeg("-i", flat, "-c", "copy", "-metadata:s:v", "rotate=90", turned)
    ffmpeg("-i", turned, "-frames:v", 1, tmp_path / "upright.png")
    upright = np.asarray(Image.open(tmp_path / "upright.png").convert("RGB"))
    assert upright.shape == (128, 96, 3), "control: the program turns it"
    read = open_source(str(turned)).read().rgb
    assert np.abs(read.astype(int) - upright).mean() < 3
    framing = Framing((96, 128), (128, 96), (128, 96), 90)
    twice = framing(open_source(str(turned), size=framing.asked).read().rgb)
    assert np.abs(twice.astype(int) - np.rot90(upright, -1)).mean() < 3
