"""Law: the file is the registration, and an unknown kind is an error that lists the known ones."""

from pathlib import Path

import pytest

import warpfuse.stages.sources as sources
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.schemes import modules, path_of, scheme_of


def test_a_new_module_is_found_without_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = Path(sources.__file__).with_name("pattern.py").read_text()
    (tmp_path / "fresh.py").write_text(text.replace('= ("pattern",)', '= ("fresh",)'))
    with pytest.raises(SourceError, match="fresh"):
        sources.probe("fresh:64x64")
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    assert sources.probe("fresh:64x64").width == 64


def test_every_kind_has_the_same_door():
    found = list(modules(sources))
    assert {"file", "pattern"} <= {scheme for module in found for scheme in module.SCHEMES}
    assert all(callable(module.open) and callable(module.probe) for module in found)


def test_an_unknown_kind_lists_the_known():
    with pytest.raises(SourceError, match=r"foo.*pattern:"):
        sources.open_source("foo:bar")
    with pytest.raises(SourceError, match="Did you mean 'pattern:'"):
        sources.probe("patern:")


@pytest.mark.parametrize(("size", "frames"), [((0, 4), None), ((64, 1), None), (None, 0)])
def test_absurd_requests_are_refused(size: tuple[int, int] | None, frames: int | None):
    with pytest.raises(SourceError):
        sources.open_source("pattern:", size, frames)


def test_paths_are_told_from_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("odd:name.mp4").touch()
    assert scheme_of("odd:name.mp4") == "file"
    assert scheme_of("clip.mp4") == scheme_of("/tmp/a.mp4") == scheme_of("C:clip") == "file"
    assert scheme_of("/dev/video0") == scheme_of("/dev/v4l/by-id/usb-C920-video-index0,640x480") == "camera"
    assert scheme_of("/dev/null") == "file", "a device, but none of video"
    assert scheme_of("RTSP://host/x") == "rtsp"
    assert scheme_of("https://host/" + "a" * 300) == "https"  # longer than any file's name
    assert path_of("file:///tmp/a%20b.mp4") == Path("/tmp/a b.mp4")
    assert path_of("odd:name.mp4") == Path("odd:name.mp4")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("192.168.1.20/video.mjpg", "192.168.1.20/video.mjpg"),
        ("192.168.1.20:554/live", "192.168.1.20:554/live"),
        ("localhost:8080/video", "localhost:8080/video"),
        ("www.youtube.com/watch?v=1", "www.youtube.com/watch?v=1"),
        ("admin:S3CRET@192.168.1.20:554/live", "***@192.168.1.20:554/live"),
        ("1admin:S3C/R@ET@localhost/live", "***@localhost/live"),
        ("admin:S3CRET@cam/live", "***@cam/live"),
    ],
)
def test_an_address_without_its_kind_is_told_from_a_file_and_shows_no_password(url: str, shown: str):
    with pytest.raises(SourceError) as refused:
        sources.open_source(url)
    text = str(refused.value)
    assert text.startswith(f"{shown}: ") and f"rtsp://{shown}" in text and "S3C" not in text and "admin" not in text


@pytest.mark.parametrize(
    "url", ["rtsp:/admin:S3CRET@cam/live", "rtsp:admin:S3CRET@cam/live", "http:/anna:S3CRET@cam/1"]
)
def test_an_address_without_its_slashes_shows_no_password(url: str):
    with pytest.raises(SourceError, match="a host behind two slashes") as refused:
        sources.open_source(url)
    assert "S3CRET" not in str(refused.value) and "@" not in str(refused.value)


def test_a_file_that_looks_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("clips.org").mkdir()
    Path("clips.org/a.txt").write_text("no video")
    with pytest.raises(SourceError, match="a video file is expected"):
        sources.open_source("clips.org/a.txt")
    with pytest.raises(SourceError, match="no such file"):
        sources.open_source("holiday.2024/clip.mp4")
