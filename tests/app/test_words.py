"""Law: words are what a user means by them: a graph file, or a video and the one to be made of it."""

import inspect

import av
import pytest
from PIL import Image

from warpfuse.flags import asked, graph_flags, told_apart
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def frames_of(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.fixture
def clip(tmp_path):
    """A video of 12 frames in a folder of its own."""
    path = tmp_path / "holiday.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", 25)
        stream.width, stream.height = 96, 64
        for _ in range(12):
            out.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (96, 64), (90, 120, 160)))))
        out.mux(stream.encode(None))
    return path


def test_a_video_in_the_place_of_a_graph_file_is_the_source_and_the_second_the_sink(command, clip, exact_bundle):
    code, _, err = command("run", clip, clip.with_name("ink.mp4"), "--bundle", exact_bundle)
    assert code == 0, err
    assert frames_of(clip.with_name("ink.mp4")) == 12 and names(clip.parent) == ["holiday.mkv", "ink.mp4"]


def test_without_a_sink_a_new_name_beside_the_source_is_written_and_said(command, clip, exact_bundle):
    for name in ("holiday_styled.mkv", "holiday_styled-2.mkv"):
        code, _, err = command("run", clip, "--bundle", exact_bundle)
        assert code == 0 and name in "".join(err.split("\n")), err
        assert frames_of(clip.with_name(name)) == 12


def test_a_mistyped_source_is_told_before_the_sink_that_it_has_not(command, tmp_path):
    for words in (["typo.mp4"], ["--source", str(tmp_path / "typo.mp4")]):
        code, _, err = command("run", *words)
        assert code == 2 and "typo.mp4: no such file" in err and "sink" not in err, err
    code, _, err = command("run", "pattern:")
    assert code == 2 and "no sink" in err, "control: a source that is there"


def test_a_second_video_that_is_there_is_not_destroyed(command, clip):
    other = clip.with_name("other.mkv")
    other.write_bytes(b"a film")
    code, _, err = command("run", clip, other)
    assert code == 2 and f"--sink {other}" in err and other.read_bytes() == b"a film"


def test_a_video_by_the_name_of_a_graph_file_is_told(command, clip):
    code, _, err = command("run", clip.rename(clip.with_name("holiday.yaml")))
    assert code == 2 and "--source" in err and "codec" not in err and err.count("\n") == 1


def test_a_text_without_an_ending_is_a_graph_file(tmp_path):
    (tmp_path / "evening").write_text("prompt: ink\n")
    (tmp_path / "film").write_bytes(b"\x00\x00\x00\x20ftyp")
    assert told_apart([str(tmp_path / "evening")])[0] is not None
    assert told_apart([str(tmp_path / "film"), "out.mp4"]) == (None, str(tmp_path / "film"), "out.mp4")


@pytest.mark.parametrize("first", ["camera:0", "rtsp://a/b", "shots/%04d.png", "a.mp4", "pattern:"])
def test_whatever_is_a_source_may_be_the_first_word(first):
    assert told_apart([first]) == (None, first, None)


@pytest.mark.parametrize("words", [["a.mp4", "b.yaml"], ["a.mp4", "b.mp4", "c.mp4"], ["a.yaml", "b.mp4"]])
def test_more_than_one_of_each_is_told_with_the_remedy(words):
    with pytest.raises(ConfigError, match=r"--sink|--source"):
        told_apart(words)


def test_a_source_given_twice_is_told(command):
    code, _, err = command("run", "a.mp4", "--source", "b.mp4")
    assert code == 2 and "a.mp4" in err and "b.mp4" in err


@pytest.mark.parametrize("given, picture, at", [
    ("key.png", "key.png", None), ("key.png:12", "key.png", 12.0), ("key.png:1.25", "key.png", 1.25),
    ("C:key.png", "C:key.png", None), ("take:2/key.png", "take:2/key.png", None), ("key.png:.5", "key.png", 0.5),
])  # fmt: skip
def test_a_keyframe_is_a_file_and_may_be_at_a_time(given, picture, at):
    keys = asked({**dict.fromkeys(inspect.signature(graph_flags).parameters), "keyframe": given})[1]
    assert keys["stages"]["anchor"] == {"picture": picture, "at": at, "frame": ""}


def test_cache_deep_and_a_keyframe_are_keys_of_their_stages():
    flags = dict.fromkeys(inspect.signature(graph_flags).parameters)
    stages = asked({**flags, "keyframe": "a.png", "cache_deep": "3"})[1]["stages"]
    assert stages["predict"] == {"cache_deep": "3"} and stages["anchor"]["picture"] == "a.png"
    assert validate({"stages": {"predict": stages["predict"]}}).stages.predict.cache_deep == 3


def test_a_keyframe_of_the_command_line_is_laid_over_the_file(command, clip, exact_bundle, tmp_path):
    Image.new("RGB", (96, 64), (9, 200, 30)).save(tmp_path / "key.png")
    (tmp_path / "g.yaml").write_text(
        f"{{source: {clip}, bundle: {exact_bundle}, stages: {{anchor: {{at: 9, weight: 1}}, fuse: {{weight: 0.5}}}}}}"
    )
    out = tmp_path / "%02d.png"
    code, _, err = command("run", tmp_path / "g.yaml", "--sink", out, "--keyframe", f"{tmp_path / 'key.png'}:0.2")
    assert code == 0 and "keyframe key.png: of frame 5, at 0.20 s" in err, err
    shown = [Image.open(str(out) % number).getpixel((48, 32)) for number in range(12)]
    assert [pixel == (9, 200, 30) for pixel in shown] == [False] * 5 + [True] * 7
