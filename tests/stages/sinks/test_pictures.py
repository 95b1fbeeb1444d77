"""Law: pictures in a row are whole, numbered without gaps, and never mixed with those that were there before."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.sources import open_source

from .conftest import INFO, SIZE, frames, names, noisy


def coloured() -> RawFrame:
    """Smooth, with every hue: what a lossy coder keeps."""
    y, x = np.mgrid[0:48, 0:64]
    return RawFrame(Stamp(0, 0), np.stack([x * 4, y * 5, 255 - x * 4], -1).astype(np.uint8))


def write(url, shown, info=INFO):
    sink = open_sink(str(url), info, SIZE)
    for frame in shown:
        sink.write(frame)
    sink.close(True)
    return sink


@pytest.mark.parametrize(
    ("ending", "off"), [("png", 0), ("bmp", 0), ("tif", 0), ("tiff", 0), ("jpg", 6), ("JPEG", 6), ("webp", 12)]
)
def test_another_reader_sees_the_same_picture(tmp_path: Path, ending: str, off: int):
    frame = coloured()
    write(tmp_path / f"a%d.{ending}", [frame])
    with Image.open(tmp_path / f"a0.{ending}") as picture:
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - frame.rgb).max() <= off


def test_names_count_from_0_or_from_start_and_the_folder_is_made(tmp_path: Path):
    write(tmp_path / "new" / "here" / "%04d.png", frames(3))
    assert names(tmp_path / "new" / "here") == ["0000.png", "0001.png", "0002.png"]
    write(f"{tmp_path}/x_%d.jpg#start=9", frames(3))
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == ["x_10.jpg", "x_11.jpg", "x_9.jpg"]


def test_quality_makes_smaller_files(tmp_path: Path):
    for quality in (95, 30):
        write(f"{tmp_path}/{quality}_%d.jpg#quality={quality}", noisy(1))
    assert (tmp_path / "30_0.jpg").stat().st_size < (tmp_path / "95_0.jpg").stat().st_size / 2


def test_what_is_written_is_a_source_again(tmp_path: Path):
    shown = frames(12)
    write(tmp_path / "%d.png", shown)
    source = open_source(str(tmp_path))
    back = list(iter(source.read, None))
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(shown, back, strict=True))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("{}/a.png", r"have a number in their names. Try: .*a_%04d\.png"),
        ("{}/%04d.png#begin=3", "start and quality"),
        ("{}/%04d.png#strat=3", "Did you mean 'start'"),
        ("{}/%04d.png#start=-3", "whole number from 0"),
        ("{}/%04d.jpg#quality=101", "from 1 to 100"),
        ("{}/file/%04d.png", "is a file"),
        ("{}/old%d.png", r"2 pictures, old1\.png to old2\.png, are there already"),
        ("{}/one%d.png", r"one7\.png is there already"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_run(tmp_path: Path, url: str, words: str):
    for name in ("file", "old1.png", "old2.png", "one7.png", "other3.png"):
        (tmp_path / name).touch()
    before = names(tmp_path)
    with pytest.raises(SinkError, match=words) as raised:
        check(url.format(tmp_path), "pattern:")
    assert "\n" not in str(raised.value) and names(tmp_path) == before


def test_a_new_row_beside_other_files_passes_and_leaves_no_trace(tmp_path: Path):
    (tmp_path / "b0.png").touch()
    check(f"{tmp_path}/a%d.png", "pattern:")
    check(f"{tmp_path}/new/folder/a%d.png", "pattern:")
    assert names(tmp_path) == ["b0.png"]


@pytest.mark.parametrize("source", ["{}", "{}/*.png", "{}/in*.png", "{}/in_%d.png"])
def test_a_row_does_not_grow_by_what_is_made_of_it(tmp_path: Path, source: str):
    Image.new("RGB", SIZE).save(tmp_path / "in_1.png")
    with pytest.raises(SinkError, match=r"part of the source|there already"):
        check(f"{tmp_path}/in_%d.png#start=5", source.format(tmp_path))
    check(f"{tmp_path}/out/in_%d.png", source.format(tmp_path))


def test_a_file_is_made_again_by_the_next_process_and_a_recording_goes_on(tmp_path: Path):
    url = f"{tmp_path}/%d.png"
    open_sink(url, INFO, SIZE).close(False)
    for info, left in ((INFO, 3), (replace(INFO, live=True), 6)):
        sink = open_sink(url, info, SIZE)  # its process dies without a word
        for frame in frames(3):
            sink.write(frame)
        assert len(names(tmp_path)) == left


def test_a_failed_run_keeps_whole_pictures_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    sink = open_sink(f"{tmp_path}/new/%d.png", INFO, SIZE)
    for frame in frames(2):
        sink.write(frame)
    sink.close(False)
    sink.close(False)
    assert names(tmp_path / "new") == ["0.png", "1.png"] and "the 2 pictures it made are kept" in caplog.text
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def test_no_frames_is_an_error_and_no_folder(tmp_path: Path):
    sink = open_sink(f"{tmp_path}/new/%d.png", INFO, SIZE)
    with pytest.raises(SinkError, match="no frame"):
        sink.close(True)
    assert names(tmp_path) == []


def test_a_full_disk_is_told_and_leaves_whole_pictures(small_disk: Path):
    with pytest.raises(SinkLost, match=r"disk is full after \d+ frames"):
        write(small_disk / "%d.png", noisy(200))
    for path in small_disk.iterdir():
        assert path.name.endswith(".png") and not path.name.startswith(".")
        with Image.open(path) as picture:
            picture.load()


def test_a_frame_of_another_size_is_a_mistake(tmp_path: Path):
    sink = open_sink(f"{tmp_path}/%d.png", INFO, (32, 32))
    with pytest.raises(ValueError, match="agreed"):
        sink.write(frames(1)[0])
