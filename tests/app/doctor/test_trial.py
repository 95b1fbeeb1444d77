"""The trial says whether a machine keeps up, by what a viewer read, and what to change where it does not."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from warpfuse.cli import app
from warpfuse.doctor import trial
from warpfuse.doctor.trial import Trial, told, try_out
from warpfuse.engine.errors import BadInput
from warpfuse.graph.plan.config import validate


def measured(**other):
    """A trial on a machine that makes 20 of 25 frames a second."""
    slow = Trial(
        source="in.mp4", bundle="embedded", size=(512, 288), steps=2, skip=1, wanted_fps=25.0, reached_fps=20.0,
        dropped_share=0.2, delay_ms={"p50": 80.0, "p95": 120.0, "pictures": 100}, first_picture_s=2.0,
        lanes={"flow": {"flow": 20.0}, "loop": {"predict": 46.0, "fuse": 4.0}}, size_fixed=False, multiple=8,
    )  # fmt: skip
    return replace(slow, **other)


def test_a_machine_that_shows_what_comes_keeps_up_and_needs_no_advice():
    fast = measured(reached_fps=24.9, dropped_share=0.01)
    assert fast.keeps_up and fast.advice == []
    assert told(fast)[-1] == "this machine keeps up"


@pytest.mark.parametrize("short", [{"reached_fps": 20.0, "dropped_share": 0.0}, {"reached_fps": 25.0}])
def test_a_machine_that_shows_or_takes_less_does_not(short):
    assert not measured(**short).keeps_up


def test_the_bottleneck_is_the_stage_that_takes_most_of_the_slowest_lane():
    """Stages of a lane wait for each other: 30 + 25 ms there is more than 40 ms in a lane alone."""
    slow = measured(lanes={"flow": {"flow": 40.0}, "loop": {"warp": 25.0, "predict": 30.0}})
    assert slow.bottleneck == ("predict", 30.0, 55.0)


def test_advice_is_what_would_bring_the_rate_by_arithmetic():
    """Half the rate: half the pixels (each side by the root of 2, in multiples of what the networks take), half the
    steps, or every second frame."""
    advice = measured(reached_fps=12.5).advice
    assert [line.split(": ")[0] for line in advice] == ["--steps 1", "--size 360x200", "--set pace.skip=2"]
    fixed = measured(reached_fps=12.5, steps=1, size_fixed=True, skip=2).advice
    assert [line.split(": ")[0] for line in fixed] == ["warpfuse export --size 360x200", "--set pace.skip=4"]


def test_numbers_that_are_shown_are_read_back_by_a_viewer_and_figures_are_plain(exact_bundle):
    config = validate(
        {"source": "pattern:96x64@25,live=1", "bundle": exact_bundle, "prompt": "same", "sinks": ["null:"]}
    )
    found = try_out(config, seconds=1.0)
    assert found.delay_ms["pictures"] > 0 and 0 < found.delay_ms["p50"] <= found.delay_ms["p95"]
    assert (found.wanted_fps, found.size, found.steps) == (25.0, (96, 64), 1) and found.reached_fps > 0
    assert {"predict", "decode"} <= {stage for lane in found.lanes.values() for stage in lane}
    assert json.loads(json.dumps(found.to_dict()))["keeps_up"] in (True, False)
    assert not any("\n" in line for line in told(found))


def test_a_viewer_that_reads_no_number_is_told_and_no_delay_is_made_up(exact_bundle, monkeypatch):
    """The control: without a number in the picture there is no delay."""
    monkeypatch.setattr(trial.burnt_code, "burn", lambda rgb, number: None)
    config = validate(
        {"source": "pattern:96x64@25,live=1", "bundle": exact_bundle, "prompt": "same", "sinks": ["null:"]}
    )
    found = try_out(config, seconds=0.5)
    assert found.delay_ms == {"p50": None, "p95": None, "pictures": 0}
    assert any("no delay" in line for line in told(found))


def test_a_source_that_is_not_there_is_told(exact_bundle):
    config = validate({"source": "nowhere.mp4", "bundle": exact_bundle, "sinks": ["null:"]})
    with pytest.raises(BadInput, match=r"nowhere\.mp4"):
        try_out(config, seconds=0.5)


def test_flags_of_a_run_belong_to_the_deep_examination():
    result = CliRunner().invoke(app, ["doctor", "--bundle", "embedded"])
    assert isinstance(result.exception, BadInput) and "--deep" in str(result.exception)
