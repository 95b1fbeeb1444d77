"""The trace that Perfetto opens, and figures that cross processes."""

import gc
import json
import weakref

import pytest
from hdrh.histogram import HdrHistogram

from warpfuse.graph.metrics.meters import Meter
from warpfuse.graph.metrics.report import LinkReport, Report, RunnerReport, SinkReport, summed
from warpfuse.graph.metrics.trace import Span, Track, to_chrome, write_chrome
from warpfuse.graph.processes.launcher import ByHand
from warpfuse.graph.processes.worker_handle import WorkerHandle


def test_every_call_has_its_worker_stage_frame_and_time(tmp_path):
    spans = {
        "main": [Span("warp", 3, 2_000, 5_000), Span("fuse", 3, 5_000, 6_500)],
        "show": [Span("sink_1", 3, 9_000, 9_100)],
    }
    write_chrome(tmp_path / "t.json", spans)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    calls = [(e["pid"], e["tid"], e["args"]["seq"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert calls == [(1, 1, 3, 0, 3), (1, 2, 3, 3, 1.5), (2, 1, 3, 7, 0.1)]
    names = [e["args"]["name"] for e in events if e["ph"] == "M"]
    assert names == ["main", "warp", "fuse", "show", "sink_1"]
    assert to_chrome({})["traceEvents"] == []


def test_a_track_keeps_the_newest_calls():
    track = Track(most=3)
    for seq in range(5):
        track.add("warp", seq, seq, seq + 1)
    assert [span.seq for span in track.spans()] == [2, 3, 4]


def test_histograms_of_several_workers_are_one():
    meters = [Meter(), Meter()]
    for ms in range(1, 101):
        meters[ms % 2].record(ms * 1_000_000)
    whole = Meter.decode(summed(*(meter.encode() for meter in meters)))
    assert (whole.count, whole.max_ms) == (100, 100) and 49 <= whole.ms(50) <= 51


@pytest.mark.parametrize(
    "make",
    [lambda: Meter.decode(Meter().encode())._histogram, lambda: HdrHistogram(1, 1000, 3)],
    ids=["ours", "control"],
)
def test_a_histogram_is_gone_when_nobody_holds_it(make, request):
    """Without the garbage collector, which gets to it late in a process that holds much."""
    gc.disable()
    try:
        seen = weakref.ref(make())
        assert (seen() is None) == ("ours" in request.node.name)
    finally:
        gc.enable()


def test_figures_of_a_worker_go_on_in_its_next_life():
    def life(frames, shown):
        meter = Meter()
        meter.record(1_000_000)
        links = {"a->b.x": LinkReport(4, frames, 2, 1)}
        runner = RunnerReport("sink_1", frames, shown, False, 0, meter.encode(), links, {"a->b.x": meter.encode()})
        sink = SinkReport(frames, 0, shown, 0, 0, False, meter.encode(), meter.encode(), ["note"])
        return Report("show", [runner], {}, {"sink_1": sink})

    member = WorkerHandle("show", ("sink_1",), ByHand())
    member.told(life(5, 4))
    member.begins_anew()
    member.told(life(3, 9))
    both = member.report
    assert both == life(5, 4) + life(3, 9) and member.written("sink_1") == 8
    assert both.runners[0].frames == both.sinks["sink_1"].frames == 8
    assert both.runners[0].links["a->b.x"] == LinkReport(4, 8, 2, 2)
    assert Meter.decode(both.runners[0].hops["a->b.x"]).count == 2
    assert both.sinks["sink_1"].shown == 9 and both.sinks["sink_1"].notes == ["note"]
    assert Meter.decode(both.sinks["sink_1"].latency).count == 2
