"""`warpfuse bench`: what it counts and how it adds up. No figure of this machine is judged here."""

import json
import re
import threading

import numpy as np
import pytest
from support.card import card
from support.exact import write
from typer.testing import CliRunner

from warpfuse.benchmark.bench import as_measured, bench
from warpfuse.benchmark.calls import calls_of_a_frame, floor_of
from warpfuse.benchmark.figure import Figure
from warpfuse.benchmark.machine import Machine, describe
from warpfuse.benchmark.report import table, to_json
from warpfuse.benchmark.several import Start, several
from warpfuse.benchmark.ways import WARM_UP, pictures_of
from warpfuse.cli import app
from warpfuse.engine.errors import BadInput
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import prepare

MACHINE = Machine("a processor", 2, 4.0, "cpu", None, None, "Linux", {}, "float32", 1e9, 1e8)
SOURCE = "pattern:64x48@25,frames=12"


def config(bundle, **keys):
    return validate({"source": SOURCE, "sinks": ["null:"], "bundle": bundle, "size": "64x48", **keys})


@pytest.mark.parametrize(
    "keys, times",
    [
        ({}, {"encoder": 2, "unet": 1, "decoder": 1}),
        ({"fusion": 0}, {"encoder": 1, "unet": 1, "decoder": 1}),
        ({"steps": 3}, {"encoder": 2, "unet": 3, "decoder": 1}),
        ({"steps": 3, "stages": {"predict": {"stream": True}}}, {"encoder": 3, "unet": 1, "decoder": 1}),
        ({"stages": {"fuse": {"reference": "latent"}}}, {"encoder": 1, "unet": 1, "decoder": 1}),
    ],
)
def test_networks_are_counted_as_often_as_the_graph_runs_them(exact_bundle, keys, times):
    told = config(exact_bundle, **keys)
    context = prepare(told, (64, 48), lambda line: None)
    try:
        calls = {call.name: call for call in calls_of_a_frame(context)}
        plan = [node.kind for node in _plan(context)]
    finally:
        context.close()
    assert {name: call.times for name, call in calls.items()} == times
    encoded = plan.count("encode") + plan.count("encode_past")
    assert (encoded, plan.count("decode")) == (times["encoder"], times["decoder"])
    rows = 3 if keys.get("stages", {}).get("predict") else 1
    assert calls["unet"].feeds["x"].shape == (rows, 192, 6, 8)


def test_the_encoder_of_what_is_fed_back_is_counted_by_its_name(tmp_path):
    bundle = write(tmp_path / "exact", past=True)
    for keys, wanted in (({}, {"encoder": 1, "encoder_past": 1}), ({"fusion": 0}, {"encoder": 1})):
        context = prepare(config(bundle, **keys), (64, 48), lambda line: None)
        try:
            assert {c.name: c.times for c in calls_of_a_frame(context)} == {**wanted, "unet": 1, "decoder": 1}
        finally:
            context.close()


def test_what_is_measured_is_what_a_run_ends_on_and_nothing_is_built_beside_it(exact_bundle):
    with card():
        measured = as_measured(config(exact_bundle, device="cuda:0"))
        assert measured.backend == "tensorrt", "auto has it built, and then runs it"
        context = prepare(measured, (64, 48), lambda line: None)
        assert (context.engines.backend, context.engines.upgrade) == ("tensorrt", None)
        context.close()
        asked = config(exact_bundle, device="cuda:0", backend="onnxruntime")
        assert as_measured(asked).backend == "onnxruntime", "control: what is asked for is measured"
    assert as_measured(config(exact_bundle)).backend == "onnxruntime"


def _plan(context):
    from warpfuse.graph.plan.planner import plan_graph

    return plan_graph(context.config, calls=context.calls).nodes


def test_a_frames_floor_is_the_sum_over_its_calls():
    class Call:
        def __init__(self, times, flops):
            from warpfuse.benchmark.work import Work

            self.times, self.work = times, Work(flops, 0)

    assert floor_of([Call(2, 1_000_000), Call(1, 3_000_000)], MACHINE) == pytest.approx(5.0)


def test_percentiles_rate_and_ratio():
    figure = Figure("x", floor_ms=5.0, ms=[float(n) for n in range(1, 101)], fps=50.0)
    assert (figure.percentile(0.5), figure.ratio) == (50.5, 4.0)
    assert Figure("nothing", 0.0).to_dict()["ms_p99"] == 0.0


def test_every_way_gives_figures(exact_bundle):
    said = []
    report = bench(config(exact_bundle), MACHINE, seconds=0.2, say=said.append)
    assert [figure.name for figure in report.networks] == ["encoder", "unet", "decoder"]
    whole = ["device to device", "host to host", "source to sink"]
    assert [figure.name for figure in report.whole] == whole
    assert [line for line in said if line in whole] == [*whole, *reversed(whole)], "in turns, there and back"
    for figure in report.figures:
        assert figure.fps > 0 and figure.ms and figure.host_mib > 0
        assert 0 < figure.percentile(0.5) <= figure.percentile(0.99)
        assert np.isclose(figure.fps, 1000 / np.mean(figure.ms), rtol=0.01), "rate and times are of the same frames"
    told = to_json(report)
    assert json.loads(json.dumps(told))["figures"]["unet"]["calls_a_frame"] == 1
    assert (told["size"], told["backend"]) == ([64, 48], "onnxruntime")
    assert table(report).row_count == 6


def test_streams_at_once_are_counted_together(exact_bundle):
    told = config(exact_bundle)
    one, four = several(told, pictures_of(told, (64, 48)), 0.0, 60, [1, 4])
    assert (one.name, four.name) == ("1 stream", "4 streams")
    assert one.rows == 1 and 1 <= four.rows <= 4
    assert (len(one.ms), len(four.ms)) == (2 * (30 - WARM_UP - 1), 2 * 4 * (12 - WARM_UP - 1)), "of every stream, warm"
    assert one.fps > 0 and four.fps > 0
    assert four.to_dict()["rows_a_call"] >= 1 and "rows_a_call" not in Figure("alone", 0.0).to_dict()


def test_streams_begin_at_one_moment():
    """However late one comes. The control: one that never comes is given up, and each has a moment of its own."""
    start, found, begun = Start(2), [], threading.Event()
    first = threading.Thread(target=lambda: (begun.set(), found.append(start())))
    first.start()
    assert begun.wait(30) and not found
    found.append(start())
    first.join()
    assert len(found) == 2 and found[0] == found[1]
    alone = Start(2, patience_s=0.01)
    assert alone() < alone()


def test_the_command_measures_as_many_streams_as_asked(exact_bundle, tmp_path):
    flags = ["bench", "--bundle", exact_bundle, "--source", SOURCE, "--size", "64x48", "--seconds", "0.1"]
    ends = ["--streams", "1", "--streams", "2", "--json", str(tmp_path / "b.json")]
    result = CliRunner().invoke(app, [*flags, *ends])
    assert result.exit_code == 0, result.output
    assert list(json.loads((tmp_path / "b.json").read_text())["figures"])[-2:] == ["1 stream", "2 streams"]
    assert re.search(r"2 streams, (1\.\d|2\.0)", result.output), "every call may have found both ready"
    result = CliRunner().invoke(app, ["bench", "--streams", "2", "--fps", "25"])
    assert isinstance(result.exception, BadInput) and "a sweep is for one stream" in str(result.exception)


def test_pictures_are_of_the_networks_size(exact_bundle):
    pictures = pictures_of(config(exact_bundle), (32, 24))
    assert len(pictures) == 12 and {raw.rgb.shape for raw in pictures} == {(24, 32, 3)}


def test_a_source_too_short_to_measure_is_told(exact_bundle):
    told = config(exact_bundle, source="pattern:64x48@25,frames=4")
    with pytest.raises(BadInput, match="has 4 frames; 5 are needed"):
        bench(told, MACHINE, seconds=0.05)


def test_the_machine_is_measured():
    machine = describe("cpu", 1)
    assert machine.flops_per_s > 1e8 and machine.bytes_per_s > 1e8 and machine.cores >= 1
    assert machine.gpu is None and "torch" in machine.versions and machine.name.endswith("cores")


def test_the_command_writes_json_and_plot(exact_bundle, tmp_path):
    flags = ["bench", "--bundle", exact_bundle, "--source", SOURCE, "--size", "64x48", "--seconds", "0.1"]
    ends = ["--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")]
    result = CliRunner().invoke(app, [*flags, *ends])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "b.json").read_text())["machine"]["cores"] >= 1
    assert (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"


def test_a_sweep_says_what_holds_the_rate(exact_bundle, tmp_path):
    flags = ["bench", "--bundle", exact_bundle, "--source", SOURCE, "--steps", "1", "--steps", "2", "--size", "32x32"]
    found = {}
    for rate in ("1", "100000"):
        out = tmp_path / f"{rate}.json"
        result = CliRunner().invoke(app, [*flags, "--size", "64x48", "--fps", rate, "--json", str(out)])
        assert result.exit_code == 0, result.output
        found[rate] = json.loads(out.read_text())["found"]
    assert [(one["size"], one["steps"]) for one in found["1"]] == [
        ("32x32", 1),
        ("32x32", 2),
        ("64x48", 1),
        ("64x48", 2),
    ]
    assert all(one["holds"] for one in found["1"]) and not any(one["holds"] for one in found["100000"])


def test_several_sizes_without_a_rate_are_refused(exact_bundle):
    result = CliRunner().invoke(app, ["bench", "--size", "32x32", "--size", "64x48"])
    assert isinstance(result.exception, BadInput) and "add --fps RATE" in str(result.exception)
