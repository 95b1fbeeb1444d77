"""Law: pictures in a row are frames in the order of their numbers, shown as viewers do; what is missing is named."""

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.servers import need_ffmpeg

from warpfuse.graph.plan.config import validate
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources import open_source, probe

from .conftest import counted, number_in

MS = 1_000_000


@pytest.fixture
def make_row(tmp_path: Path) -> Callable[..., Path]:
    """Pictures of these numbers, from which the number can be read, as `name` says."""

    def make(numbers, name="shots/%04d.png", size=(64, 48)) -> Path:
        for number in numbers:
            path = tmp_path / (name % number)
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(counted(number, *size)).save(path)
        return tmp_path / name

    return make


def read(url, **options):
    source = open_source(str(url), **options)
    frames = list(iter(source.read, None))
    source.close()
    return source, frames


def shown(frames) -> list[int]:
    return [number_in(frame.rgb) for frame in frames]


@pytest.mark.parametrize("name", ["shots/%04d.png", "shots/%d.png", "shots/take %03d b.jpg", "shots/100%%_%02d.bmp"])
def test_a_pattern_begins_at_the_lowest_number_and_takes_25_a_second(make_row, name):
    row = make_row([8, 9, 10, 11, 12], name)
    source, frames = read(row)
    assert shown(frames) == [8, 9, 10, 11, 12]
    assert [frame.stamp.seq for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.stamp.pts_ns for frame in frames] == [k * 40 * MS for k in range(5)]
    assert source.warning is None
    info = probe(str(row))
    assert (info.fps, info.time_base, info.frames, info.width, info.height) == (25, Fraction(1, 25), 5, 64, 48)


def test_a_folder_and_a_glob_are_in_the_order_of_numbers_not_of_letters(make_row):
    folder = make_row([1, 2, 10, 9, 100], "shots/f%d.png").parent
    (folder / "notes.txt").write_text("no picture")
    (folder / ".f3.png").write_bytes(b"hidden")
    by_letter = sorted(path.name for path in folder.glob("f*.png"))
    assert by_letter != ["f1.png", "f2.png", "f9.png", "f10.png", "f100.png"], "guards the test"
    for url in (folder, f"{folder}/", f"file://{folder}", f"{folder}/*.png", f"{folder}/f[0-9]*.png"):
        assert shown(read(url)[1]) == [1, 2, 9, 10, 100]


def test_frames_are_those_that_the_program_ffmpeg_reads(make_row, tmp_path):
    row = make_row(range(3, 9))
    program = need_ffmpeg()
    raw = subprocess.run(
        [program, "-v", "error", "-start_number", "3", "-i", row, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True,
        check=True,
    ).stdout
    reference = np.frombuffer(raw, np.uint8).reshape(-1, 48, 64, 3)
    assert np.array_equal(reference, np.stack([frame.rgb for frame in read(row)[1]]))


@pytest.mark.parametrize("rate", ["12", "24000/1001"])
def test_the_address_says_the_rate(make_row, rate):
    row = make_row(range(4))
    _, frames = read(f"{row}#fps={rate}")
    assert [frame.stamp.pts_ns for frame in frames] == [round(k * 10**9 / Fraction(rate)) for k in range(4)]


def test_the_rate_of_a_run_is_the_rows_unless_it_has_its_own(make_row):
    row = make_row(range(3))
    assert validate({"source": str(row), "fps": 10}).source == f"{row}#fps=10"
    assert validate({"source": f"{row}#fps=12", "fps": 24}).source == f"{row}#fps=12"
    assert validate({"source": "clip.mp4", "fps": 10}).source == "clip.mp4"
    assert validate({"source": str(row)}).source == str(row)


def test_a_missing_number_keeps_its_time_and_is_named(make_row):
    source, frames = read(make_row([1, 2, 4, 8, 9]))
    assert shown(frames) == [1, 2, 4, 8, 9]
    assert [frame.stamp.pts_ns // (40 * MS) for frame in frames] == [0, 1, 3, 7, 8]
    assert source.warning is not None and "no picture 3, 5 to 7," in source.warning


def test_a_picture_that_cannot_be_read_is_left_out_and_named(make_row):
    row = make_row(range(5))
    (row.parent / "0000.png").write_bytes(b"no picture")
    (row.parent / "0002.png").write_bytes((row.parent / "0002.png").read_bytes()[:60])
    source, frames = read(row)
    assert shown(frames) == [1, 3, 4]
    assert source.warning is not None and "could not be read: 0000.png, 0002.png" in source.warning


def test_another_size_is_cropped_and_scaled_to_the_first(make_row):
    row = make_row([0, 1])
    Image.fromarray(counted(2, 256, 96)).resize((256, 96)).save(row.parent / "0002.png")
    _, frames = read(row)
    assert [frame.rgb.shape for frame in frames] == [(48, 64, 3)] * 3
    _, frames = read(row, size=(32, 24))
    assert [frame.rgb.shape for frame in frames] == [(24, 32, 3)] * 3 and shown(frames)[:2] == [0, 1]


def test_every_picture_is_turned_as_its_own_exif_says(tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255  # the corner tells the orientations apart
    for number, orientation in enumerate((1, 3, 6, 8, 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(picture).save(tmp_path / f"{number}.jpg", exif=exif, quality=95)
    _, frames = read(tmp_path / "%d.jpg", size=(48, 48))
    corners = [(f.rgb[6, 6].mean() > 128, f.rgb[6, 41].mean() > 128, f.rgb[41, 41].mean() > 128) for f in frames]
    upright, half, right, left = (True, False, False), (False, False, True), (False, True, False), (False, False, False)
    assert corners == [upright, half, right, left, upright]


def test_sixteen_bits_are_shown_as_eight(tmp_path):
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16)
    Image.fromarray(np.broadcast_to(levels, (48, 256)).copy()).save(tmp_path / "a.png")
    _, (frame,) = read(tmp_path / "*.png")
    assert np.abs(frame.rgb[20].astype(int) - np.arange(256)[:, None]).max() <= 1


def test_so_many_frames_and_no_more(make_row):
    row = make_row(range(6))
    source, frames = read(row, frames=2)
    assert shown(frames) == [0, 1] and source.info.frames == 2
    assert source.read() is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("{}/none%04d.png", "no file of this pattern exists. There is '0001.png'"),
        ("{}/*.jpg", "no picture matches"),
        ("{}/empty", "folder without pictures"),
        ("{}/%04d.png#fps=0", "above 0"),
        ("{}/%04d.png#rate=3", "not understood"),
        ("{}/gone/%04d.png", "cannot be read"),
        ("{}/broken%d.png", "not one of its pictures could be decoded"),
    ],
)
def test_what_is_no_row_is_one_line(make_row, url, words):
    folder = make_row([1]).parent
    (folder / "empty").mkdir()
    (folder / "broken1.png").write_bytes(b"none")
    with pytest.raises(SourceError, match=words.replace(".", r"\.")) as raised:
        probe(url.format(folder))
    assert "\n" not in str(raised.value)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(make_row, make_clip):
    clip = make_clip("100%d #1 [x].mp4", [counted(5)] * 3)
    assert shown(read(clip)[1]) == [5, 5, 5]
    shutil.rmtree(make_row([1]).parent)
