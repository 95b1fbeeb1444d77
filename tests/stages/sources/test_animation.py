"""Law: an animated GIF, PNG or WebP is a clip: each picture at its own time, once, as Pillow composes it."""

from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources import open_source, probe

from .conftest import counted

SHOWN_MS = [100, 40, 250, 100, 500]


def animated(path: Path, durations=SHOWN_MS, pictures=None) -> Path:
    pictures = pictures or [Image.fromarray(counted(number)) for number in range(len(durations))]
    first, *others = pictures
    lossless = {"lossless": True, "exact": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, **lossless)
    return path


@pytest.mark.parametrize("ending", [".gif", ".png", ".webp"])
def test_pictures_and_times_are_those_of_the_file_and_come_once(tmp_path, ending):
    path = animated(tmp_path / f"a{ending}")
    source = open_source(str(path))
    frames = list(iter(source.read, None))
    assert source.read() is None and source.warning is None
    starts = list(accumulate(SHOWN_MS[:-1], initial=0))
    assert [round(frame.stamp.pts_ns / 1e6) for frame in frames] == starts
    with Image.open(path) as reference:
        for index, frame in enumerate(frames):
            reference.seek(index)
            assert np.abs(frame.rgb.astype(int) - np.asarray(reference.convert("RGB"))).max() <= 2
    info = probe(str(path))
    assert (info.width, info.height) == (64, 48) and info.frames in (5, None)


def test_a_picture_that_lasts_no_time_is_shown_as_long_as_browsers_show_it(tmp_path):
    source = open_source(str(animated(tmp_path / "a.webp", [0, 5, 50, 100])))
    assert [frame.stamp.pts_ns // 10**6 for frame in iter(source.read, None)] == [0, 100, 200, 250]


def test_what_is_transparent_keeps_no_hidden_colour(tmp_path):
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[..., 0] = 255  # hidden red
    rgba[:, 32:] = (0, 0, 255, 255)
    moved = np.roll(rgba, 1, 1)
    path = animated(tmp_path / "a.webp", [100, 100], [Image.fromarray(rgba), Image.fromarray(moved)])
    frame = open_source(str(path)).read()
    assert frame.rgb[20, 50].tolist() == [0, 0, 255]
    assert frame.rgb[20, 10, 0] == 0, "composed, as every source with alpha is"


def test_a_webp_that_is_cut_off_gives_what_came_before(tmp_path):
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(5)]
    path = animated(tmp_path / "a.webp", pictures=noise)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    try:
        source = open_source(str(path))
    except SourceError as error:
        assert "\n" not in str(error) and "cut short" in str(error)
        return
    frames = list(iter(source.read, None))
    assert 0 < len(frames) < 5
    assert source.warning is not None and "cut short" in source.warning


def test_a_webp_that_stands_still_is_read_as_ever(tmp_path):
    Image.fromarray(counted(7)).save(tmp_path / "a.webp", lossless=True)
    source = open_source(str(tmp_path / "a.webp"))
    assert len(list(iter(source.read, None))) == 1
