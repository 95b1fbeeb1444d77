"""The command line: what it writes, its exit codes, and one clear line for everything that cannot be."""

import json
import os
from pathlib import Path

import av
import pytest
from PIL import Image

PATTERN = "pattern:96x64@25,frames=12"


@pytest.fixture
def run(command, exact_bundle, tmp_path):
    def run_it(*arguments, source=PATTERN, sink=tmp_path / "out.mp4", bundle=exact_bundle):
        return command("run", "--source", source, "--sink", sink, "--bundle", bundle, *arguments)

    return run_it


def frames_of(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_run_writes_the_video_and_the_figures(run, tmp_path):
    code, out, err = run("--stats", tmp_path / "stats.json", "--prompt", "same", "--size", "96x64", "--seed", "2")
    assert (code, out) == (0, "")
    assert frames_of(tmp_path / "out.mp4") == 12
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["frames"]["out"] == 12 and stats["size"] == [96, 64]
    assert "12 frames of 96x64 in" in err


def test_the_size_that_is_told_at_the_end_is_that_of_the_output(run, tmp_path):
    code, _, err = run("--size", "96x64", "--output", "120x80", source="pattern:96x64@25,frames=2")
    assert code == 0 and "2 frames of 120x80 (networks at 96x64) in" in "".join(err.splitlines()), err
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (120, 80)


def test_flags_override_the_file_and_the_file_overrides_the_defaults(command, exact_bundle, tmp_path):
    graph, stats = tmp_path / "graph.yaml", tmp_path / "stats.json"
    graph.write_text(
        f"source: '{PATTERN}'\nsinks: ['null:']\nbundle: {exact_bundle}\nsteps: 3\nframes: 4\n"
        "stages: {fuse: {weight: 0.9}}\n"
    )
    code, _, _ = command("run", graph, "--frames", "2", "--fusion", "0", "--stats", stats)
    figures = json.loads(stats.read_text())
    assert code == 0
    assert (figures["steps"], figures["frames"]["out"]) == (3, 2)
    assert "warp" not in figures["stages"], "--fusion 0 overrides the file's weight"


@pytest.mark.parametrize(
    "flag, says",
    [
        ("rain=1", "loras.ink: input should be less than or equal to 4, got 9"),  # the file's own is still there
        ("ink=1", "no live LoRA"),  # and this one overrides it
    ],
)
def test_a_lora_flag_overrides_the_files_scale_of_that_lora_alone(command, exact_bundle, tmp_path, flag, says):
    graph = tmp_path / "graph.yaml"
    graph.write_text(f"source: '{PATTERN}'\nsinks: ['null:']\nbundle: {exact_bundle}\nloras: {{ink: 9}}\n")
    code, _, err = command("run", graph, "--lora", flag)
    assert code == 2 and says in err and err.count("\n") == 1


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_live_loras_are_listed_and_taken(command, lora_bundles, monkeypatch, tmp_path):
    monkeypatch.setenv("WARPFUSE_BUNDLES", str(lora_bundles.live.parent))
    code, out, _ = command("bundles")
    assert code == 0 and "live LoRA paint, 0.75 by default" in out

    def last_picture(name, *flags):
        sink = tmp_path / f"{name}.mp4"
        keys = ("--source", PATTERN, "--bundle", lora_bundles.live, "--steps", "2", "--frames", "2", "--sink", sink)
        code, _, err = command("run", *keys, *flags)
        assert code == 0, err
        with av.open(str(sink)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1].astype(int)

    default, asked, off = (
        last_picture(*one) for one in (("a",), ("b", "--lora", "paint=0.75"), ("c", "--lora", "paint=0"))
    )
    assert (default == asked).all() and abs(default - off).max() > 4


def test_controls_are_listed_and_taken(command, control_bundles, monkeypatch, tmp_path):
    monkeypatch.setenv("WARPFUSE_BUNDLES", str(Path(control_bundles["steered"]).parent))
    code, out, _ = command("bundles")
    assert code == 0 and "ControlNet canny" in out and "T2I-Adapter sketch" in out
    graph = tmp_path / "graph.yaml"
    graph.write_text(f"source: '{PATTERN}'\nframes: 2\nsteps: 2\nbundle: {control_bundles['steered']}\n"
                     "controls: {sketch: {kind: image, scale: 0}, canny: {scale: 0, low: 20, high: 40}}\n")  # fmt: skip

    def last_picture(name, *flags):
        sink = tmp_path / f"{name}.mkv"
        code, _, err = command("run", graph, "--sink", sink, *flags)
        assert code == 0, err
        with av.open(str(sink)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1].astype(int)

    keys = ("--set", "controls.canny.scale=0.9")
    off, flag, key = (last_picture(*one) for one in (("a",), ("b", "--control", "canny=0.9"), ("c", *keys)))
    assert (flag == key).all() and abs(flag - off).max() > 4, "a flag leaves the other keys of the file as they are"


def test_style_images_are_listed_and_taken(command, image_bundles, monkeypatch, tmp_path):
    monkeypatch.setenv("WARPFUSE_BUNDLES", str(Path(image_bundles["shown"]).parent))
    code, out, _ = command("bundles")
    assert code == 0 and "style image look" in out and "style image mood" in out
    file = tmp_path / "a:b.png"
    Image.new("RGB", (90, 60), (240, 30, 20)).save(file)
    graph = tmp_path / "graph.yaml"
    graph.write_text(f"source: '{PATTERN}'\nframes: 2\nsteps: 2\nbundle: {image_bundles['shown']}\n"
                     f"images: {{mood: {{picture: '{file}', scale: 0}}}}\n")  # fmt: skip

    def last_picture(name, *flags):
        sink = tmp_path / f"{name}.mkv"
        code, _, err = command("run", graph, "--sink", sink, *flags)
        assert code == 0, err
        with av.open(str(sink)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1].astype(int)

    off, flag, key, plain = (
        last_picture(*one)
        for one in (
            ("a",), ("b", "--style-image", f"look={file}:1.2"),
            ("c", "--set", f"images.look.picture='{file}'", "--set", "images.look.scale=1.2"),
            ("d", "--style-image", f"look={file}"),
        )
    )  # fmt: skip
    assert (flag == key).all() and abs(flag - off).max() > 4 and abs(flag - plain).max() > 0


def test_set_reaches_a_stage(run, tmp_path):
    code, _, _ = run("--set", "stages.fuse.weight=0", "--stats", tmp_path / "stats.json")
    assert code == 0 and "warp" not in json.loads((tmp_path / "stats.json").read_text())["stages"]


def test_a_negative_prompt_is_taken_from_the_flag(run, tmp_path):
    guided = ("--set", "stages.predict.guidance=full", "--set", "stages.predict.guidance_scale=2")
    assert run("--prompt", "same", "--negative", "noisy", *guided)[0] == 0
    code, _, err = run("--prompt", "same", "--negative", "nosy", *guided)
    assert code == 2 and "nosy" in err and err.count("\n") == 1


BAD = [
    (["--negative", "noisy"], "negative: guidance 'none'"),
    (["--fusion", "1.5"], "fusion: expected a number from 0 to 1, got '1.5'"),
    (["--steps", "99"], "steps: "),
    (["--size", "big"], "WIDTHxHEIGHT"),
    (["--lora", "ink"], "--lora 'ink': expected NAME=SCALE, as in ink=0.7"),
    (["--lora", "ink=1", "--lora", "ink=2"], "--lora ink is given twice"),
    (["--lora", "ink=much"], "loras.ink: input should be a valid number"),
    (["--lora", "ink=1"], "this bundle has no live LoRA. Export it again"),
    (["--control", "canny"], "--control 'canny': expected NAME=SCALE"),
    (["--control", "canny=3"], "controls.canny.scale: input should be less than or equal to 2"),
    (["--control", "edges=1"], "edges: the map of 'edges' is of no kind; expected kind: one of"),
    (["--control", "canny=1"], "this bundle has no control. Export it again"),
    (["--style-image", "look"], "--style-image 'look': expected NAME=FILE or NAME=FILE:SCALE"),
    (["--style-image", "a=x.png", "--style-image", "a=y.png"], "--style-image a is given twice"),
    (["--style-image", "look=x.png:3"], "images.look.scale: input should be less than or equal to 2"),
    (["--style-image", "look=x.png"], "this bundle has no style image. Export it again"),
    (["--prompt", "castle"], "no style called 'castle'"),
    (["--backend", "onxruntime"], "no backend called 'onxruntime'"),
    (["--device", "cuda:0"], "--device cpu"),
    (["--set", "stages.fuse.wieght=1"], "did you mean 'stages.fuse.weight'"),
    (["--bundle", "nothing"], "no bundle called 'nothing'"),
    (["--stats", "/nowhere/stats.json"], "/nowhere/stats.json"),
    (["--nonsense"], "--nonsense"),
    (["a.yaml", "b.yaml"], "b.yaml"),
]


@pytest.mark.parametrize("arguments, says", BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line_and_exit_2_and_leaves_nothing(run, tmp_path, arguments, says):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err and err.count("\n") == 1 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def sources(folder):
    (folder / "text.mp4").write_text("this is no film\n" * 100)
    (folder / "empty.mp4").write_bytes(b"")
    return ["nothing.mp4", "text.mp4", "empty.mp4", "."]


@pytest.mark.parametrize("which", range(4), ids=["missing", "text", "empty", "folder"])
def test_a_source_that_is_no_video_is_one_line_and_exit_2(run, tmp_path, which):
    media = tmp_path / "media"
    media.mkdir()
    name = sources(media)[which]
    code, _, err = run(source=media / name)
    assert code == 2 and err.count("\n") == 1 and not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("sink", ["nowhere/out.mp4", "out.xyz", "."])
def test_a_sink_that_cannot_be_is_one_line_and_exit_2(run, tmp_path, sink):
    code, _, err = run(sink=tmp_path / sink)
    assert code == 2 and err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_truncated_video_gives_what_decodes_and_says_so(run, tmp_path):
    assert run(sink=tmp_path / "whole.mkv", source="pattern:96x64@25,frames=100")[0] == 0
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "torn.mkv").write_bytes(whole[: len(whole) // 2])
    code, _, err = run(source=tmp_path / "torn.mkv")
    frames = frames_of(tmp_path / "out.mp4")
    assert code == 0 and 0 < frames < 100
    assert str(frames) in err


def test_a_stage_that_fails_is_exit_4(run, monkeypatch, tmp_path):
    from warpfuse.stages.transfer.download import Download

    def broken(self, frame):
        raise RuntimeError("out of paint")

    monkeypatch.setattr(Download, "__call__", broken)
    code, _, err = run()
    assert code == 4 and "stage download: RuntimeError: out of paint" in err and list(tmp_path.iterdir()) == []


def test_a_sink_that_is_lost_is_exit_3(run, monkeypatch):
    from warpfuse.stages.errors import SinkLost
    from warpfuse.stages.sinks.null import NullSink

    def full(self, frame):
        raise SinkLost("the disk is full")

    monkeypatch.setattr(NullSink, "write", full)
    code, _, err = run(sink="null:")
    assert code == 3 and "the disk is full" in err


def test_bundles_lists_styles(command, exact_bundle, monkeypatch):
    monkeypatch.setenv("WARPFUSE_BUNDLES", str(Path(exact_bundle).parent))
    code, out, _ = command("bundles")
    assert code == 0 and "exact" in out and "negative" in out and "(default)" in out


def test_bundles_are_told_to_scripts(command, exact_bundle, monkeypatch, tmp_path):
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "bundle.json").write_text("{}")
    monkeypatch.setenv("WARPFUSE_BUNDLES", f"{Path(exact_bundle).parent}{os.pathsep}{tmp_path}")
    code, out, err = command("bundles", "--json")
    told = {bundle["name"]: bundle for bundle in json.loads(out)["bundles"]}
    assert (code, err) == (0, "")
    assert set(told["exact"]["styles"]) == {"same", "negative", "noisy"} and told["exact"]["problem"] is None
    assert told["exact"]["default_style"] == "negative" and told["exact"]["prompt"] == "styles"
    assert "format" in told["torn"]["problem"] and set(told["torn"]) == {"name", "folder", "problem"}
    assert told["embedded-flow"]["kind"] == "flow" and told["embedded"]["licence"] == "Apache-2.0"


def test_a_graph_is_drawn(command, tmp_path):
    code, out, _ = command("graph", "--svg", tmp_path / "graph.svg")
    assert code == 0 and "predict" in out and "delay" in out
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")


def test_help_and_version(command):
    assert command("--help")[0] == 0
    code, out, _ = command("version")
    assert code == 0 and out.count(".") == 2
