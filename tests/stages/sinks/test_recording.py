"""Law: what was written of a live source is not lost, whatever becomes of the run."""

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import av
import av.error
import pytest

from warpfuse.stages.errors import SinkLost
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sinks.encoder import FORMATS

from .conftest import INFO, SIZE, frames, names, noisy

LIVE = replace(INFO, live=True)
ENDINGS = sorted(FORMATS)
WRITTEN, KEPT_BACK = 200, 75
"""Frames, and how many of them may be with the encoder, or in a fragment that is not whole yet."""


def playable(path: Path) -> int:
    """Frames that can be decoded, up to where the file is cut off; 0 if it cannot be opened."""
    count = 0
    with suppress(av.error.InvalidDataError), av.open(str(path)) as opened:
        for _ in opened.decode(video=0):
            count += 1
    return count


def boxes(path: Path) -> list[str]:
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        found.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return found


def die_writing(path: Path, info) -> None:
    """In a process of its own: write, and be killed."""
    child = os.fork()
    if child == 0:
        sink = open_sink(str(path), info, SIZE)
        for frame in frames(WRITTEN):
            sink.write(frame)
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_recording_outlives_its_process_and_the_next_one_says_so(tmp_path: Path, ending: str):
    path = tmp_path / f"a{ending}"
    die_writing(path, LIVE)
    (kept,) = names(tmp_path)
    assert kept.startswith("a.unfinished-") and kept.endswith(ending)
    assert playable(tmp_path / kept) >= WRITTEN - KEPT_BACK
    sink = open_sink(str(path), LIVE, SIZE)
    assert [f"is kept: {kept}" in note for note in sink.notes] == [True]
    for frame in frames(70):
        sink.write(frame)
    assert len(names(tmp_path)) == 2
    assert open_sink(str(path), LIVE, SIZE).notes == sink.notes, "control: what is being written is not left behind"
    sink.close(True)
    assert playable(path) == 70 and playable(tmp_path / kept) >= WRITTEN - KEPT_BACK


def test_a_file_that_can_be_made_again_is_another_matter(tmp_path: Path):
    """The control: without the options of a recording nothing of an unfinished file can be played, so none is left."""
    sink = open_sink(str(tmp_path / "a.mp4"), INFO, SIZE)
    for frame in frames(WRITTEN):
        sink.write(frame)
    handles = (h for h in Path("/proc/self/fd").iterdir() if os.path.lexists(h))
    handle = next(h for h in handles if str(h.readlink()).startswith(f"{tmp_path}/"))
    assert handle.stat().st_size > 0 and playable(handle) == 0
    sink.close(False)
    die_writing(tmp_path / "b.mp4", INFO)
    assert names(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_recording_outlives_a_failed_run(tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture):
    sink = open_sink(str(tmp_path / f"a{ending}"), LIVE, SIZE)
    for frame in frames(30):
        sink.write(frame)
    sink.close(False)
    (kept,) = names(tmp_path)
    assert "unfinished" in kept and playable(tmp_path / kept) == 30
    assert f"what was recorded is kept: {kept}" in caplog.text


def test_nothing_recorded_leaves_nothing(tmp_path: Path):
    open_sink(str(tmp_path / "a.mp4"), LIVE, SIZE).close(False)
    assert names(tmp_path) == []


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_recording_outlives_a_full_disk(small_disk: Path, ending: str):
    sink = open_sink(str(small_disk / f"a{ending}"), LIVE, SIZE)
    with pytest.raises(SinkLost, match=r"disk is full.* What was recorded until then is kept: a\.unfinished-"):
        for frame in noisy(2000):
            sink.write(replace(frame, rgb=frame.rgb // 32))
    (kept,) = names(small_disk)
    assert playable(small_disk / kept) > 0


def test_a_recording_that_ends_is_an_ordinary_file(tmp_path: Path):
    path = tmp_path / "a.mp4"
    sink = open_sink(str(path), LIVE, SIZE)
    for frame in frames(60):
        sink.write(frame)
    sink.close(True)
    assert names(tmp_path) == ["a.mp4"] and playable(path) == 60
    assert boxes(path) == ["ftyp", "free", "mdat", "moov"], "no fragments"
