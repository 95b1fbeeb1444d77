"""Law: what is written reads back at its own times in its own colours, whole or not at all."""

import errno
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sinks.encoder import FORMATS
from warpfuse.stages.sinks.target import Target
from warpfuse.stages.sources import open_source
from warpfuse.stages.stage import VideoInfo

from .conftest import INFO, SIZE, frames, names, noisy

ENDINGS = sorted(FORMATS)


def write(path: Path, shown: list[RawFrame], info: VideoInfo = INFO, **options: Any) -> Any:
    height, width = shown[0].rgb.shape[:2]
    sink = open_sink(str(path), info, (width, height), **options)
    for frame in shown:
        sink.write(frame)
    sink.close(True)
    return sink


def read(path: Path) -> list[RawFrame]:
    source = open_source(str(path))
    shown = list(iter(source.read, None))
    source.close()
    assert source.warning is None
    return shown


def times(path: Path) -> list[Fraction]:
    """Seconds on the container's clock."""
    with av.open(str(path)) as opened:
        return [Fraction(f.pts * f.time_base.numerator, f.time_base.denominator) for f in opened.decode(video=0)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_reads_back(tmp_path: Path, ending: str):
    source = open_source("pattern:128x96,frames=30,motion=objects")
    shown = list(iter(source.read, None))
    path = tmp_path / f"a{ending}"
    write(path, shown, source.info)
    back = read(path)
    assert [frame.stamp for frame in back] == [frame.stamp for frame in shown]
    error = np.mean([(a.rgb.astype(float) - b.rgb) ** 2 for a, b in zip(shown, back, strict=True)])
    assert 10 * np.log10(255**2 / error) > 30
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("first", [0, 70])
def test_uneven_times_and_the_first_are_kept(tmp_path: Path, ending: str, first: int, live: bool):
    told = [first + ms for ms in (0, 40, 93, 94, 360, 361, 960, 1660, 1671, 1710)]
    info = VideoInfo(*SIZE, Fraction(10), Fraction(1, 1000), live=live)
    write(tmp_path / f"vfr{ending}", frames(10, [ms * 10**6 for ms in told]), info)
    assert times(tmp_path / f"vfr{ending}") == [Fraction(ms, 1000) for ms in told]
    assert told != [first + i * (told[-1] - first) // 9 for i in range(10)]  # guards the test: no constant rate does


@pytest.mark.parametrize("time_base", [Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 10**9), Fraction(1, 25)])
def test_mp4_keeps_the_sources_unit_of_time(tmp_path: Path, time_base: Fraction):
    ticks = [0, 1, 2, 5, 9]
    step = max(1, round(Fraction(1, 100) / time_base))
    told = [tick * step * time_base for tick in ticks]
    info = VideoInfo(*SIZE, Fraction(25), time_base)
    write(tmp_path / "t.mp4", frames(5, [round(t * 10**9) for t in told]), info)
    assert times(tmp_path / "t.mp4") == told


def test_the_last_picture_has_a_length(tmp_path: Path):
    for ending in (".mp4", ".mkv"):
        write(tmp_path / f"a{ending}", frames(25))
        with av.open(str(tmp_path / f"a{ending}")) as opened:
            assert opened.duration == pytest.approx(1_000_000, abs=2000)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_no_picture_is_hidden_behind_a_gap_near_the_end(tmp_path: Path, ending: str, live: bool):
    """The length of an MP4 follows from decoding times, which lag behind: what lay beyond was there and not shown."""
    info = VideoInfo(64, 48, Fraction(50), Fraction(1, 50), live=live)
    source = open_source("pattern:64x48@50,frames=40")  # moves, so that pictures are decoded in another order
    pictures = [frame.rgb for frame in iter(source.read, None)]
    for gap in range(1, 6):
        ticks = [*range(40 - gap), *range(80 - gap, 79), 80]
        shown = [
            RawFrame(Stamp(k, tick * 20_000_000), rgb)
            for k, (tick, rgb) in enumerate(zip(ticks, pictures, strict=True))
        ]
        path = tmp_path / f"{gap}{ending}"
        write(path, shown, info)
        assert times(path) == [Fraction(tick, 50) for tick in ticks], gap


@pytest.mark.parametrize("ending", ENDINGS)
def test_two_runs_give_the_same_bytes(tmp_path: Path, ending: str):
    source = open_source("pattern:128x96,frames=12")
    shown = list(iter(source.read, None))
    for name in ("one", "two"):
        write(tmp_path / f"{name}{ending}", shown, source.info)
    assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"two{ending}").read_bytes()
    with av.open(str(tmp_path / f"one{ending}")) as opened:
        assert "creation_time" not in opened.metadata


@pytest.mark.parametrize("ending", ENDINGS)
def test_colours_are_converted_as_they_are_tagged(tmp_path: Path, ending: str):
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [235, 235, 235], [16, 16, 16], [200, 200, 40]])
    picture = np.repeat(np.repeat(colours[None], 32, 1), 64, 0).astype(np.uint8)
    path = tmp_path / f"c{ending}"
    write(path, [RawFrame(Stamp(i, i * 40_000_000), picture) for i in range(3)], INFO)
    with av.open(str(path)) as opened:
        context = opened.streams.video[0].codec_context
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert tags == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"
        luma = np.asarray(next(opened.decode(video=0)).to_ndarray())[32, 16:192:32].astype(int)
    r, g, b = colours.T / 255
    bt709 = 16 + 219 * (0.2126 * r + 0.7152 * g + 0.0722 * b)
    bt601 = 16 + 219 * (0.299 * r + 0.587 * g + 0.114 * b)
    assert np.abs(luma - bt709).max() <= 3
    assert np.abs(luma - bt601).max() > 8  # guards the test: the other matrix is seen
    back = read(path)[1].rgb[32, 16:192:32].astype(int)
    assert np.abs(back - colours).max() <= 8


def test_the_index_comes_first_in_mp4(tmp_path: Path):
    write(tmp_path / "a.mp4", frames(10))
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (0, 2)])
def test_odd_sizes_are_refused(tmp_path: Path, size: tuple[int, int]):
    with pytest.raises(SinkError, match="even"):
        open_sink(str(tmp_path / "a.mp4"), INFO, size)
    assert names(tmp_path) == []


def test_a_frame_of_another_size_is_a_mistake(tmp_path: Path):
    sink = open_sink(str(tmp_path / "a.mp4"), INFO, (32, 32))
    with pytest.raises(ValueError, match="agreed"):
        sink.write(frames(1)[0])
    sink.close(False)


def test_the_name_appears_with_the_whole_file(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    sink = open_sink(str(path), INFO, SIZE)
    for frame in frames(30):
        sink.write(frame)
    assert path.read_bytes() == b"older"
    assert names(tmp_path) == ["a.mp4"]
    sink.close(True)
    sink.close(True)
    assert len(read(path)) == 30
    assert names(tmp_path) == ["a.mp4"]


def test_without_files_that_have_no_name_a_hidden_one_is_written_and_the_next_sink_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # what an old kernel takes it for: writing to a folder
    if (child := os.fork()) == 0:
        try:
            sink = open_sink(str(tmp_path / "a.mp4"), INFO, SIZE)
            for frame in frames(100):
                sink.write(frame)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    (left,) = names(tmp_path)
    assert left.startswith(".a.mp4.part-")
    other, ours = tmp_path / ".b.mp4.part-1-0", tmp_path / f".a.mp4.part-{os.getpid()}-1000000"
    for path in (other, ours):
        path.touch()  # of another file, and of a process that lives
    write(tmp_path / "a.mp4", frames(3))
    assert names(tmp_path) == sorted([other.name, ours.name, "a.mp4"])


@pytest.mark.parametrize("written", [0, 1, 60])
def test_a_failed_run_leaves_nothing_and_spares_the_older_file(tmp_path: Path, written: int):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    sink = open_sink(str(path), INFO, SIZE)
    for frame in frames(written):
        sink.write(frame)
    sink.close(False)
    assert names(tmp_path) == ["a.mp4"]
    assert path.read_bytes() == b"older"


def test_no_frames_is_an_error_and_no_file(tmp_path: Path):
    sink = open_sink(str(tmp_path / "a.mp4"), INFO, SIZE)
    with pytest.raises(SinkError, match="no frame"):
        sink.close(True)
    assert names(tmp_path) == []


def test_a_link_is_followed(tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a.mp4").symlink_to(tmp_path / "there" / "b.mp4")
    write(tmp_path / "a.mp4", frames(3))
    assert (tmp_path / "a.mp4").is_symlink()
    assert len(read(tmp_path / "there" / "b.mp4")) == 3


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_told_and_leaves_nothing(small_disk: Path, ending: str):
    (small_disk / f"a{ending}").write_bytes(b"older")
    with pytest.raises(SinkLost, match=r"disk is full.* of 0\.1 MB") as raised:
        write(small_disk / f"a{ending}", noisy(200))
    assert "\n" not in str(raised.value)
    assert names(small_disk) == [f"a{ending}"]
    assert (small_disk / f"a{ending}").read_bytes() == b"older"


def test_a_full_disk_is_told_without_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    kept = Target.__init__

    def full(self: Target, path: Path, recording: bool = False) -> None:
        kept(self, path, recording)
        self.part = Path("/dev/full")

    monkeypatch.setattr(Target, "__init__", full)
    with pytest.raises(SinkLost, match="disk is full"):
        write(tmp_path / "a.mkv", noisy(100))
    assert names(tmp_path) == []


def test_a_failing_last_step_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SinkLost, match="disk is full"):
        write(tmp_path / "a.mp4", frames(3))
    assert names(tmp_path) == []
