"""Law: what is wrong with a sink is said before anything slow is loaded, and saying it leaves no trace."""

import os
from pathlib import Path

import av
import pytest

import warpfuse.stages.sinks as sinks
from warpfuse.stages.errors import SinkError
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.sinks.null import NullSink
from warpfuse.stages.sources.schemes import modules

from .conftest import INFO, SIZE, frames, names


@pytest.mark.parametrize("url", ["null:", "{}/new.mp4", "{}/NEW.MKV", "file://{}/new.webm"])
def test_a_good_sink_passes(tmp_path: Path, url: str):
    check(url.format(tmp_path), source="pattern:")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("{}/none/a.mp4", "does not exist"),
        ("{}/file/a.mp4", "is a file"),
        ("{}", "folder"),
        ("{}/a.xyz", r"\.mp4.*\.webm"),
        ("{}/a.gif", r"\.mp4"),
        ("{}/a", r"\.mp4"),
        ("foo:bar", "null:"),
        ("nul:", "Did you mean 'null:'"),
        ("{}/pipe.mp4", "device or pipe"),
    ],
)
def test_a_bad_sink_is_refused(tmp_path: Path, url: str, words: str):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    for door in (check, lambda url: open_sink(url, INFO, SIZE)):
        with pytest.raises(SinkError, match=words) as raised:
            door(url.format(tmp_path))
        assert "\n" not in str(raised.value)
    assert names(tmp_path) == ["file", "pipe.mp4"]


def test_the_source_is_not_overwritten(tmp_path: Path):
    clip, other = tmp_path / "clip.mp4", tmp_path / "other.mp4"
    clip.write_bytes(b"precious")
    other.symlink_to(clip)
    for source in (str(clip), f"file://{clip}", str(tmp_path / "." / "clip.mp4")):
        for target in (clip, other):
            with pytest.raises(SinkError, match="source"):
                check(str(target), source)
    check(str(tmp_path / "new.mp4"), str(clip))
    assert clip.read_bytes() == b"precious"


def test_the_source_of_the_sound_is_not_overwritten_either(tmp_path: Path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"precious")
    with pytest.raises(SinkError, match="source"):
        open_sink(str(clip), INFO, SIZE, sound_from=str(clip))


def test_a_missing_encoder_is_told_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(SinkError, match="libx264"):
        check(str(tmp_path / "a.mp4"))


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # to root everything is permitted
    with pytest.raises(SinkError, match="Permission denied"):
        check(str(tmp_path / "a.mp4"))


def test_null_counts():
    sink = open_sink("null:", INFO, SIZE)
    assert isinstance(sink, NullSink)
    for frame in frames(3):
        sink.write(frame)
    sink.close(True)
    assert sink.frames == 3


def test_every_kind_has_the_same_door():
    found = list(modules(sinks))
    assert {"file", "null"} <= {scheme for module in found for scheme in module.SCHEMES}
    assert all(callable(module.open) and callable(module.check) for module in found)
