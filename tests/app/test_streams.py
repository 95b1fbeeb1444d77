"""Several streams from the command line: flags, files, what each is told, and what is refused."""

import json

import pytest

import warpfuse
from warpfuse.stages.errors import SinkLost
from warpfuse.stages.sinks.null import NullSink
from warpfuse.stages.transfer.download import Download

A, B = "pattern:96x64@25,frames=7", "pattern:96x64@25,frames=9"


@pytest.fixture
def graph(exact_bundle, tmp_path):
    path = tmp_path / "graph.yaml"
    path.write_text(
        f"bundle: {exact_bundle}\nprompt: same\nstreams:\n"
        f"  yard: {{source: '{A}', sinks: ['null:']}}\n"
        f"  door: {{source: '{B}', sinks: ['null:', 'null:'], prompt: negative, steps: 2}}\n"
    )
    return path


def test_several_sources_take_a_sink_each(command, exact_bundle, tmp_path):
    stats = tmp_path / "stats.json"
    ends = ["--source", A, "--source", B, "--sink", tmp_path / "a.mp4", "--sink", "null:"]
    code, out, err = command(
        "run", *ends, "--bundle", exact_bundle, "--stats", stats, "--set", "streams.pattern-2.steps=2"
    )
    assert (code, out) == (0, "")
    own = json.loads(stats.read_text())["streams"]
    assert {name: (s["frames"]["out"], s["steps"]) for name, s in own.items()} == {
        "pattern": (7, 1),
        "pattern-2": (9, 2),
    }
    assert "pattern: 7 frames of 96x64" in err and "pattern-2: 9 frames" in err and "16 frames of 96x64" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "stats.json"]


def test_a_file_has_its_streams_by_name_and_flags_hold_for_all(command, graph, tmp_path):
    stats = tmp_path / "stats.json"
    assert command("run", graph, "--frames", "3", "--stats", stats)[0] == 0
    figures = json.loads(stats.read_text())
    assert {name: own["frames"]["out"] for name, own in figures["streams"].items()} == {"yard": 3, "door": 3}
    assert figures["networks"]["unet"]["rows"] == 3 + 2 * 3
    assert figures["stages"]["door.sink_2"]["count"] == 3


def test_the_same_from_python(graph):
    stats = warpfuse.run(graph)
    assert {name: own.frames.out for name, own in stats.streams.items()} == {"yard": 7, "door": 9}


def test_every_stream_is_drawn(command, graph, tmp_path):
    code, out, _ = command("graph", graph, "--svg", tmp_path / "graph.svg")
    assert code == 0 and "yard.predict" in out and "door.predict" in out and "shared UNet" in out
    assert "door.sink_2" in (tmp_path / "graph.svg").read_text()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (
            ["run", "--source", A, "--source", B, "--sink", "null:"],
            "2 sources take as many sinks, in their order, got 1",
        ),
        (
            ["run", "GRAPH", "--source", A, "--source", B, "--sink", "null:", "--sink", "null:"],
            "has streams of its own",
        ),
        (["run", "GRAPH", "--source", A], "source: is each stream's own here: streams.yard.source"),
        (["run", "GRAPH", "--workers", "stages"], "run in one process: leave workers out"),
        (["worker", "GRAPH", "main"], "give this command one source"),
    ],
)
def test_what_several_streams_cannot_is_one_line(command, graph, arguments, says):
    code, out, err = command(*(graph if argument == "GRAPH" else argument for argument in arguments))
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1


def test_a_page_may_stand_beside_several_streams(command, tmp_path):
    pytest.importorskip("fastapi", reason="the control page needs the extra 'web'")
    file = tmp_path / "stats.json"
    ends = ["--source", A, "--source", B, "--sink", "null:", "--sink", "null:"]
    code, _, err = command("run", *ends, "--page", "0", "--stats", str(file))
    assert code == 0 and "control page: http://127.0.0.1:" in err
    assert len(json.loads(file.read_text())["streams"]) == 2


@pytest.mark.parametrize("error, exit_code", [(SinkLost("the disk is full"), 3), (RuntimeError("out of paint"), 4)])
def test_one_that_breaks_off_is_told_by_its_exit_code_and_the_figures_are_written(
    command, graph, tmp_path, monkeypatch, error, exit_code
):
    def breaks(kind, method, raised):
        call, first = getattr(kind, method), []

        def broken(self, frame):
            first[:] = first or [self]
            if self is first[0]:
                raise raised
            return call(self, frame)

        monkeypatch.setattr(kind, method, broken)

    breaks(*((NullSink, "write") if exit_code == 3 else (Download, "__call__")), error)
    stats = tmp_path / "stats.json"
    code, _, err = command("run", graph, "--stats", stats)
    assert code == exit_code and str(error) in err and "has ended, the others go on" in err
    out = [own["frames"]["out"] for own in json.loads(stats.read_text())["streams"].values()]
    assert 0 in out and max(out) in (7, 9), "the other one came to its end"
