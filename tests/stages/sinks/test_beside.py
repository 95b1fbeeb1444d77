"""Law: what a film holds beside its picture is in what is made of it, or one line names it; ffprobe is the judge."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source

ENDINGS = [".mp4", ".mkv", ".mov", ".webm"]
SAID = [(0.2, 0.9, "hello"), (1.0, 1.6, "good bye")]
CHAPTERS = [("one", 0.0, 1.0), ("two", 1.0, 2.0)]
SAME = {"deu": "ger"}  # of ISO 639-2's two codes QuickTime knows one
FLAGS = ("default", "forced", "comment", "hearing_impaired")


@pytest.fixture(scope="module")
def ffmpeg() -> Callable[..., bytes]:
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        pytest.skip("no ffmpeg program: apt-get install ffmpeg")

    def run(*arguments: object) -> bytes:
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True).stdout

    return run


@pytest.fixture(scope="module")
def rich(ffmpeg: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A film of two seconds, a Matroska and a QuickTime file, with as much beside its picture as they hold."""
    folder = tmp_path_factory.mktemp("rich")
    stamp = "00:00:0{:.3f}".format
    lines = [f"{n}\n{stamp(a)} --> {stamp(b)}\n{text}\n".replace(".", ",") for n, (a, b, text) in enumerate(SAID, 1)]
    (folder / "s.srt").write_text("\n".join(lines))
    told = [f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={a * 1000:.0f}\nEND={b * 1000:.0f}\ntitle={t}" for t, a, b in CHAPTERS]
    (folder / "meta.txt").write_text("\n".join([";FFMETADATA1\ntitle=Trial\nartist=Me", *told]) + "\n")
    ffmpeg("-f", "lavfi", "-i", "color=red:s=32x32", "-frames:v", 1, folder / "cover.png")
    inputs = ["-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=2"]
    for hertz in (440, 880):
        inputs += ["-f", "lavfi", "-i", f"sine=f={hertz}:d=2"]
    inputs += ["-i", folder / "s.srt", "-i", folder / "meta.txt"]
    common = ["-map", 0, "-map", 1, "-map", 2, "-map", 3, "-map_metadata", 4, "-c:v", "libx264", "-c:a", "aac"]
    common += ["-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=eng", "-metadata:s:s:0", "language=fra"]
    common += ["-disposition:a:0", "comment", "-disposition:a:1", "default", "-timecode", "01:02:03:04"]
    attached = ["-attach", folder / "cover.png", "-metadata:s:t:0", "mimetype=image/png"]
    attached += ["-attach", folder / "s.srt", "-metadata:s:t:1", "mimetype=application/x-truetype-font"]
    attached += ["-metadata:s:t:1", "filename=a.ttf", "-metadata:s:t:0", "filename=cover.png"]
    ffmpeg(*inputs, *common, "-c:s", "srt", "-disposition:s:0", "forced", *attached, folder / "rich.mkv")
    ffmpeg(*inputs, *common, "-c:s", "mov_text", folder / "rich.mov")
    return {"mkv": folder / "rich.mkv", "mov": folder / "rich.mov"}


def restyle(clip: Path, path: Path, count: int | None = None) -> Any:
    source = open_source(str(clip), frames=count)
    sink = open_sink(str(path), source.info, (source.info.width, source.info.height), sound_from=str(clip))
    for frame in iter(source.read, None):
        sink.write(frame)
    source.close()
    sink.close(True)
    return sink


def probe(path: Path) -> dict[str, Any]:
    show = ["-show_streams", "-show_format", "-show_chapters", "-of", "json"]
    found: dict[str, Any] = json.loads(subprocess.check_output(["ffprobe", "-v", "error", *show, path]))
    return found


def of_type(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [stream for stream in found["streams"] if stream["codec_type"] == kind]


def flags(stream: dict[str, Any]) -> set[str]:
    return {name for name in FLAGS if stream["disposition"][name]}


def said(ffmpeg: Callable[..., bytes], path: Path) -> list[tuple[float, float, str]]:
    """What ffmpeg makes of the subtitles, as (from, to, text), seconds."""
    blocks = ffmpeg("-i", path, "-map", "0:s:0", "-f", "srt", "-").decode().strip().split("\n\n")
    found = []
    for block in blocks:
        _, times, *text = block.splitlines()
        first, last = (
            sum(float(part) * 60**power for power, part in enumerate(reversed(at.replace(",", ".").split(":"))))
            for at in times.split(" --> ")
        )
        found.append((first, last, " ".join(text)))
    return found


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["mkv", "mov"])
class TestOfAFilm:
    """Every kind of thing, from two containers into four."""

    def test_tags_and_chapters_stay(self, rich: dict[str, Path], tmp_path: Path, kind: str, ending: str):
        sink = restyle(rich[kind], tmp_path / f"a{ending}")
        found = probe(tmp_path / f"a{ending}")
        tags = {key.lower(): value for key, value in found["format"]["tags"].items()}
        assert (tags["title"], tags["artist"]) == ("Trial", "Me")
        reference = probe(rich[kind])
        start = float(of_type(reference, "video")[0]["start_time"])
        chapters = [(c["tags"]["title"], float(c["start_time"]), float(c["end_time"])) for c in found["chapters"]]
        assert [title for title, *_ in chapters] == ["one", "two"]
        for (_, first, last), told in zip(chapters, reference["chapters"], strict=True):
            assert first == pytest.approx(max(0, float(told["start_time"]) - start), abs=0.002)
            assert last == pytest.approx(float(told["end_time"]) - start, abs=0.002)
        assert not [note for note in sink.notes if "tags" in note or "chapters" in note]

    def test_languages_and_flags_stay(self, rich: dict[str, Path], tmp_path: Path, kind: str, ending: str):
        notes = " ".join(restyle(rich[kind], tmp_path / f"a{ending}").notes)
        found, reference = probe(tmp_path / f"a{ending}"), probe(rich[kind])
        for sort in ("audio", "subtitle"):
            for made, told in zip(of_type(found, sort), of_type(reference, sort), strict=True):
                was, now = (stream["tags"].get("language", "und") for stream in (told, made))
                assert now in (was, SAME.get(was))
                for flag in flags(told) - flags(made):
                    assert f"flag {flag} of" in notes
        defaults = [("default" in flags(stream)) for stream in of_type(found, "audio")]
        assert defaults == [False, True]

    def test_subtitles_say_the_same_at_the_same_time(
        self, ffmpeg: Callable[..., bytes], rich: dict[str, Path], tmp_path: Path, kind: str, ending: str
    ):
        restyle(rich[kind], tmp_path / f"a{ending}")
        start = float(of_type(probe(rich[kind]), "video")[0]["start_time"])
        before, after = said(ffmpeg, rich[kind]), said(ffmpeg, tmp_path / f"a{ending}")
        assert [text for *_, text in after] == ["hello", "good bye"]
        for (a, b, _), (c, d, _) in zip(before, after, strict=True):
            assert (c, d) == pytest.approx((a - start, b - start), abs=0.04)

    def test_timecode_stays(self, rich: dict[str, Path], tmp_path: Path, kind: str, ending: str):
        restyle(rich[kind], tmp_path / f"a{ending}")
        found = probe(tmp_path / f"a{ending}")
        held = [tags.get("timecode", tags.get("TIMECODE")) for s in found["streams"] if (tags := s.get("tags", {}))]
        assert "01:02:03:04" in held

    def test_covers_and_attached_files_stay_or_are_named(
        self, rich: dict[str, Path], tmp_path: Path, kind: str, ending: str
    ):
        if kind == "mov":
            pytest.skip("QuickTime holds none")
        (note,) = [n for n in restyle(rich[kind], tmp_path / f"a{ending}").notes if "left out" in n] or [""]
        streams = probe(tmp_path / f"a{ending}")["streams"]
        has_cover = any(s["disposition"]["attached_pic"] and s["codec_name"] == "png" for s in streams)
        assert has_cover == (ending in (".mp4", ".mkv")) and has_cover != ("a cover (png)" in note)
        has_file = any(s["codec_type"] == "attachment" and s["tags"]["filename"] == "a.ttf" for s in streams)
        assert has_file == (ending == ".mkv") and has_file != ("the attached file a.ttf" in note)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_part_of_a_film_has_the_chapters_and_subtitles_of_that_part(
    ffmpeg: Callable[..., bytes], rich: dict[str, Path], tmp_path: Path, ending: str
):
    restyle(rich["mov"], tmp_path / f"a{ending}", count=15)
    found = probe(tmp_path / f"a{ending}")
    assert [(c["tags"]["title"], float(c["end_time"])) for c in found["chapters"]] == [("one", 0.6)]
    assert [text for *_, text in said(ffmpeg, tmp_path / f"a{ending}")] == ["hello"]


def test_subtitles_without_any_sound_are_read_only_as_far_as_the_picture(
    ffmpeg: Callable[..., bytes], rich: dict[str, Path], tmp_path: Path
):
    ffmpeg("-i", rich["mov"], "-map", "0:v", "-map", "0:s", "-c", "copy", tmp_path / "mute.mov")
    for count, texts in ((None, ["hello", "good bye"]), (15, ["hello"])):
        restyle(tmp_path / "mute.mov", tmp_path / "a.mkv", count)
        assert [text for *_, text in said(ffmpeg, tmp_path / "a.mkv")] == texts


def test_pictures_that_are_subtitles_are_copied_or_named(ffmpeg: Callable[..., bytes], tmp_path: Path):
    """DVD subtitles go into Matroska as they are; nothing that WebM holds can show them."""
    clip = tmp_path / "dvd.mkv"
    (tmp_path / "s.srt").write_text("1\n00:00:00,100 --> 00:00:00,500\nhi\n")
    picture = ["-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=1", "-i", tmp_path / "s.srt"]
    ffmpeg(*picture, "-map", 0, "-map", 1, "-c:v", "libx264", "-c:s", "ass", tmp_path / "ass.mkv")
    sink = restyle(tmp_path / "ass.mkv", tmp_path / "a.mp4")
    assert ["converted from ass to mov_text" in note for note in sink.notes] == [True]
    assert restyle(tmp_path / "ass.mkv", tmp_path / "a.mkv").notes == []
    assert of_type(probe(tmp_path / "a.mkv"), "subtitle")[0]["codec_name"] == "ass"
    subs = tmp_path / "a.sup"
    subs.write_bytes(_presentation_graphics())
    ffmpeg(*picture[:4], "-f", "sup", "-i", subs, "-map", 0, "-map", 1, "-c:v", "libx264", "-c:s", "copy", clip)
    assert restyle(clip, tmp_path / "b.mkv").notes == []
    assert of_type(probe(tmp_path / "b.mkv"), "subtitle")[0]["codec_name"] == "hdmv_pgs_subtitle"
    (note,) = restyle(clip, tmp_path / "b.mp4").notes
    assert "left out" in note and "subtitles (hdmv_pgs_subtitle)" in note and "\n" not in note


def _presentation_graphics() -> bytes:
    """A Blu-ray subtitle of one pixel: composition, window, palette, object, end."""
    composition = bytes.fromhex("0080006010000080000001000000000000000000")
    window = bytes.fromhex("010000000000000001 0001".replace(" ", ""))
    palette = bytes.fromhex("000000EB8080FF")
    thing = bytes.fromhex("000000C0000008000100010000 0001".replace(" ", ""))
    found = b""
    for kind, body in ((0x16, composition), (0x17, window), (0x14, palette), (0x15, thing), (0x80, b"")):
        found += b"PG" + (9000).to_bytes(4, "big") + bytes(4) + bytes([kind]) + len(body).to_bytes(2, "big") + body
    return found


def test_tags_that_a_container_drops_are_named(ffmpeg: Callable[..., bytes], tmp_path: Path):
    make = ["-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=0.4", "-c:v", "libx264", "-metadata", "mood=calm"]
    ffmpeg(*make, tmp_path / "a.mkv")
    (note,) = restyle(tmp_path / "a.mkv", tmp_path / "b.mp4").notes
    assert "tags (MOOD)" in note
    assert restyle(tmp_path / "a.mkv", tmp_path / "b.mkv").notes == []
    assert probe(tmp_path / "b.mkv")["format"]["tags"]["MOOD"] == "calm"


def test_a_second_picture_and_data_are_named(ffmpeg: Callable[..., bytes], tmp_path: Path):
    two = ["-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=0.4", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.4"]
    ffmpeg(*two, "-map", 0, "-map", 1, "-c:v", "libx264", tmp_path / "a.mkv")
    (note,) = restyle(tmp_path / "a.mkv", tmp_path / "b.mp4").notes
    assert "a second picture (h264)" in note


def test_a_turned_film_is_not_turned_twice(ffmpeg: Callable[..., bytes], tmp_path: Path):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=0.4", "-c:v", "libx264", tmp_path / "flat.mp4")
    turned = ["-c", "copy", "-metadata:s:v:0", "rotate=90", tmp_path / "turned.mp4"]  # before FFmpeg 6
    try:
        ffmpeg("-display_rotation", 90, "-i", tmp_path / "flat.mp4", "-c", "copy", tmp_path / "turned.mp4")
    except subprocess.CalledProcessError:
        ffmpeg("-i", tmp_path / "flat.mp4", *turned)
    if not of_type(probe(tmp_path / "turned.mp4"), "video")[0].get("side_data_list"):
        pytest.skip("this ffmpeg cannot write a display matrix")
    restyle(tmp_path / "turned.mp4", tmp_path / "out.mp4")
    made = of_type(probe(tmp_path / "out.mp4"), "video")[0]
    assert (made["width"], made["height"]) == (96, 128) and "side_data_list" not in made
    assert "rotate" not in made.get("tags", {})


def test_the_same_film_gives_the_same_bytes(rich: dict[str, Path], tmp_path: Path):
    for ending in (".mp4", ".mkv"):
        for name in ("one", "two"):
            restyle(rich["mkv"], tmp_path / f"{name}{ending}")
        assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"two{ending}").read_bytes()


def test_a_sink_of_pictures_alone_names_what_it_leaves_out(rich: dict[str, Path], tmp_path: Path):
    (note,) = restyle(rich["mkv"], tmp_path / "%04d.png", count=2).notes
    assert "pictures cannot hold it" in note and "\n" not in note
    for words in ("a sound track (aac, deu)", "a sound track (aac, eng)", "subtitles (subrip, fra)", "chapters"):
        assert words in note
    source = open_source("pattern:64x48")
    assert open_sink(str(tmp_path / "p%d.png"), source.info, (64, 48)).notes == []
    (note,) = open_sink(str(tmp_path / "q%d.png"), replace(source.info, live=True, sound=b"some"), (64, 48)).notes
    assert "the sound" in note
