"""Law: what a sink with an alpha channel wrote, FFmpeg and Pillow read with that alpha; other sinks refuse it."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warpfuse.stages.errors import SinkError
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import open_sink

from .conftest import INFO, SIZE

ALPHA = replace(INFO, alpha=True)


def picture() -> np.ndarray:
    """RGBA [h, w, 4]: slow colours, opaque on the left, transparent on the right, a ramp between."""
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width]
    colours = np.stack([128 + 60 * np.sin(x / 9), 120 + 60 * np.cos(y / 8), 90 + 2 * y], -1)
    ramp = np.clip((x - width / 4) / (width / 2), 0, 1)
    return np.concatenate([colours, 255 - 255 * ramp[..., None]], -1).round().astype(np.uint8)


def write(url: Path, info=ALPHA) -> None:
    sink = open_sink(str(url), info, SIZE)
    for number in range(3):
        sink.write(RawFrame(Stamp(number, number * 40_000_000), picture()))
    sink.close(True)


def decoded(path: Path, *decoder: str) -> np.ndarray:
    """The second picture as the program ffmpeg decodes it, RGBA."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg program: apt-get install ffmpeg")
    command = ["ffmpeg", "-v", "error", *decoder, "-i", str(path), "-pix_fmt", "rgba", "-f", "rawvideo", "-"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, SIZE[1], SIZE[0], 4)[1]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("name", "decoder", "off"), [("a.mov", (), 3), ("a.webm", ("-c:v", "libvpx-vp9"), 8)], ids=["prores", "vp9"]
)
def test_ffmpeg_reads_the_alpha_of_a_film(tmp_path: Path, name: str, decoder: tuple[str, ...], off: int, live: bool):
    write(tmp_path / name, replace(ALPHA, live=live))
    shown = decoded(tmp_path / name, *decoder).astype(int)
    assert np.abs(shown[..., 3] - picture()[..., 3]).max() <= off
    opaque = picture()[..., 3] > 200
    assert np.abs(shown[..., :3] - picture()[..., :3])[opaque].mean() < 6


def test_a_film_without_alpha_stays_what_it_was(tmp_path: Path):
    sink = open_sink(str(tmp_path / "a.mov"), INFO, SIZE)
    sink.write(RawFrame(Stamp(0, 0), np.ascontiguousarray(picture()[..., :3])))
    sink.write(RawFrame(Stamp(1, 40_000_000), np.ascontiguousarray(picture()[..., :3])))
    sink.close(True)
    assert (decoded(tmp_path / "a.mov")[..., 3] == 255).all()


@pytest.mark.parametrize(("ending", "off"), [("png", 0), ("tif", 0), ("webp", 12)])
def test_pillow_reads_the_alpha_of_a_picture(tmp_path: Path, ending: str, off: int):
    write(tmp_path / f"%d.{ending}")
    with Image.open(tmp_path / f"1.{ending}") as shown:
        assert shown.mode == "RGBA"
        read = np.asarray(shown).astype(int)
    assert np.array_equal(read[..., 3], picture()[..., 3])
    opaque = picture()[..., 3] > 200
    assert np.abs(read - picture())[opaque].max() <= off


@pytest.mark.parametrize("url", ["{}/a.mp4", "{}/a.mkv", "{}/%d.jpg", "{}/%d.bmp", "rtsp://127.0.0.1:1/x", "page:0"])
def test_another_sink_refuses_in_a_line_that_says_which_do(tmp_path: Path, url: str):
    with pytest.raises(SinkError, match=r"holds no alpha.*\.mov.*\.webm.*\.png") as told:
        open_sink(url.format(tmp_path), ALPHA, SIZE)
    assert "\n" not in str(told.value)
    assert not any(tmp_path.iterdir())
