"""A reader that gives nothing back: found by its link, and by nothing that merely waits, works or is slow."""

import pytest
from support.workers import STAGES, inside

from warpfuse.graph.metrics.report import LinkReport, Report, RunnerReport
from warpfuse.graph.processes.health import StarvedLinks

LINK = "fuse->decode.latent"


def told(*, waiting=True, sent=8, busy_ns=0, starving=True, ended=False):
    sender = RunnerReport("fuse", 8, 7, False, 0, "", {LINK: LinkReport(3, sent, 3, 0, waiting)})
    reader = RunnerReport("decode", 6, 5, ended, busy_ns, "", {}, {}, [LINK] if starving else [])
    return [Report("a", [sender], {}, {}), Report("b", [reader], {}, {})]


@pytest.fixture
def stalls():
    return StarvedLinks({LINK: "decode"}, {"fuse": "fuse", "decode": "decode", "blend": "decode"})


def test_a_link_that_stands_still_is_told_with_its_time(stalls):
    assert stalls.longest(told(), 100.0) == (LINK, 0.0)
    assert stalls.longest(told(), 107.5) == (LINK, 7.5)
    stalls.forget()
    assert stalls.longest(told(), 110.0) == (LINK, 0.0), "another epoch"


@pytest.mark.parametrize("stage, lane, found", [("blend", "decode", False), ("flow", "flow", True)])
def test_a_reader_whose_lane_is_in_a_call_has_no_time(stalls, stage, lane, found):
    """The other, of a lane of its own, is the control."""
    stalls.lanes = {**stalls.lanes, stage: lane}
    called = Report("b", [RunnerReport(stage, 6, 5, False, 10**9, "", {})], {}, {})
    stalls.longest([*told(), called], 100.0)
    standing = stalls.longest([*told(), called], 107.5)
    assert standing == ((LINK, 7.5) if found else None)


@pytest.mark.parametrize(
    "seen",
    [
        {"waiting": False},  # nothing to give
        {"busy_ns": 10**9},  # a long call has a deadline of its own
        {"starving": False},  # it has a frame, and waits for those of another link
        {"ended": True},
    ],
)
def test_what_waits_or_works_does_not_stand_still(stalls, seen):
    stalls.longest(told(), 100.0)
    assert stalls.longest(told(**seen), 120.0) is None
    assert stalls.longest(told(), 130.0) == (LINK, 0.0), "and begins anew"


def test_a_frame_that_got_through_begins_anew(stalls):
    stalls.longest(told(sent=8), 100.0)
    assert stalls.longest(told(sent=9), 120.0) == (LINK, 0.0)


KEEPING = """
import pathlib
from warpfuse.graph.links.inlet import Inlet
done, counted, sign = Inlet.done, [], pathlib.Path({sign!r})
def keeping(self):
    if self.plan.receiver == "decode" and self._held is not None:
        counted.append(1)
        if len(counted) == 4:
            first = not sign.exists()
            sign.touch()
            counted.extend([1] * 1000 * first)
        if len(counted) > 1000:
            self._held = None
            return
    done(self)
Inlet.done = keeping
"""


def test_a_reader_that_gives_nothing_back_is_started_again_and_no_frame_is_lost(go, tmp_path, monkeypatch):
    """In the first life of its worker a stage keeps its frames from the fourth on; in the second it does not."""
    inside(tmp_path, monkeypatch, KEEPING.format(sign=str(tmp_path / "kept")))
    workers = {"near": ["source", *STAGES[:7]], "far": STAGES[7:], "show": ["sink_1"]}
    stats, said = go(source="pattern:96x64@25,frames=30", workers=workers, stage_deadline_s=2)
    assert (stats.restarts, stats.frames.into, stats.frames.out) == (1, 30, 30), said
    assert any("worker far stage decode has given nothing back by link " in line for line in said), said
