"""A built engine takes over when it agrees; else the old one goes on, and either way it is said, once."""

import re
from concurrent.futures import Future

import pytest
import torch

from warpfuse.engine import TensorSpec
from warpfuse.engine.errors import EngineError
from warpfuse.engine.swap import SwappingEngine

X = {"x": torch.tensor([1.0, -4.0])}


class StandIn:
    device = "cpu"

    def __init__(self, backend, answer):
        self.backend, self._answer, self.closed, self.calls = backend, answer, False, 0
        self.inputs = (TensorSpec("x", "float32", (None,)),)
        self.outputs = (TensorSpec("y", "float32", (None,)),)

    def __call__(self, inputs):
        assert not self.closed
        self.calls += 1
        return self._answer(inputs["x"])

    def close(self):
        self.closed = True


def doubled(x):
    return {"y": 2 * x}


def fails(x):
    raise EngineError("it was built for 64x64")


@pytest.fixture
def made():
    said, future, old = [], Future(), StandIn("old", doubled)
    return SwappingEngine(old, future, said.append), future, old, said


def test_it_runs_on_what_it_has_until_the_new_one_is_there(made):
    engine, future, old, said = made
    for _ in range(3):
        assert torch.equal(engine(X)["y"], 2 * X["x"])
    assert (old.calls, said, engine.backend) == (3, [], "old")
    new = StandIn("new", doubled)
    future.set_result(new)
    engine(X)
    assert (engine.backend, said) == ("new", ["runs on new now, before on old"])
    before = old.calls
    engine(X)
    assert (old.calls, new.calls) == (before, 2)


def test_the_old_one_stays_open_as_long_as_its_outputs_belong_to_a_reader(made):
    engine, future, old, _ = made
    engine(X)
    future.set_result(StandIn("new", doubled))
    engine(X)
    assert not old.closed
    engine(X)
    assert not old.closed
    engine(X)
    assert old.closed


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda x: {"y": 2 * x + 0.41}, "disagrees: 'y' is 0.41 off at most where 0.05 of 8 is allowed"),
        (lambda x: {"y": 2 * x + 0.05}, "disagrees: 'y' is 0.05 off on the mean where 0.005 of 8 is allowed"),
        (lambda x: {"y": 2 * x + torch.nan}, "disagrees: 'y' is nan off"),
        (lambda x: {"y": 2 * x + torch.inf}, "is inf off"),
        (lambda x: {"z": 2 * x}, "gives z, expected y"),
        (lambda x: {"y": torch.zeros(3)}, r"gives 'y' as \[3\], expected \[2\]"),
        (fails, "fails on a real input: it was built for 64x64"),
    ],
)
def test_one_that_does_not_agree_is_not_taken_and_it_is_said(made, answer, says):
    engine, future, old, said = made
    new = StandIn("new", answer)
    future.set_result(new)
    for _ in range(3):
        assert torch.equal(engine(X)["y"], 2 * X["x"])
    assert engine.backend == "old" and new.closed and not old.closed and new.calls == 1
    assert len(said) == 1
    assert re.search(says, said[0])


def test_one_within_the_tolerance_is_taken(made):
    engine, future, _, _ = made
    future.set_result(StandIn("new", lambda x: {"y": 2 * x + torch.tensor([0.06, 0.01])}))
    engine(X)
    assert engine.backend == "new"


def test_a_build_that_failed_or_was_cancelled_is_said(made):
    engine, future, _, said = made
    future.set_exception(EngineError("unet.onnx cannot be built"))
    engine(X)
    engine(X)
    assert said == ["stays on old: the new engine could not be built: unet.onnx cannot be built"]
    future, said = Future(), []
    engine = SwappingEngine(StandIn("old", doubled), future, said.append)
    future.cancel()
    engine(X)
    assert said == ["stays on old: the build of the new engine was cancelled"]


def test_closing_closes_all_even_what_is_built_later(made):
    engine, future, old, _ = made
    future.set_running_or_notify_cancel()
    engine.close()
    late = StandIn("new", doubled)
    future.set_result(late)
    assert old.closed and late.closed


def test_closing_stops_a_build_that_has_not_begun(made):
    engine, future, old, _ = made
    engine.close()
    assert future.cancelled() and old.closed
