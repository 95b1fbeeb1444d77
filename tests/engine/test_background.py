"""An engine is built in another process and opened here; one that fails or is stopped leaves a reason, no process."""

import sys
import time
from concurrent.futures import CancelledError

import psutil
import pytest
import torch
from support.networks import affine

from warpfuse.engine.background import Builds, Order, build_here
from warpfuse.engine.errors import EngineError


@pytest.fixture
def network(tmp_path):
    return affine(tmp_path / "double.onnx")


@pytest.fixture
def builds():
    made = []

    def started(*command):
        made.append(Builds(lambda order: command) if command else Builds())
        return made[-1]

    yield started
    for one in made:
        one.close()
    assert not [child for child in psutil.Process().children() if "warpfuse" in " ".join(child.cmdline())]


def script(code):
    return sys.executable, "-c", code


def test_what_another_process_built_is_opened_here(builds, network):
    engine = builds().order(Order(network, "onnxruntime", "cpu", {"x": (1, 3, 4, 6)})).result(60)
    assert engine.inputs[0].shape == (1, 3, 4, 6)
    x = torch.ones(1, 3, 4, 6)
    assert torch.equal(engine({"x": x})["y"], 2 * x)
    engine.close()


def test_the_reason_of_a_failed_build_is_the_last_line_it_said(builds, network):
    order = Order(network, "tensorrt", "cuda:0", None)
    with pytest.raises(EngineError, match=r"tensorrt (is not installed: pip install|: torch sees)|CUDA devices"):
        builds().order(order).result(60)


def test_a_build_that_says_nothing_tells_how_it_ended(builds, network):
    with pytest.raises(EngineError, match=r"double\.onnx: the build ended by 7"):
        builds(*script("raise SystemExit(7)")).order(Order(network, "onnxruntime", "cpu", None)).result(60)


def test_one_build_is_at_work_at_a_time(builds, network, tmp_path):
    log = tmp_path / "log"
    code = f"f = open({str(log)!r}, 'a'); f.write('begin '); f.flush(); import time; time.sleep(0.2); f.write('end ')"
    both = builds(*script(code))
    for future in [both.order(Order(network, "onnxruntime", "cpu", None)) for _ in range(2)]:
        future.result(60).close()
    assert log.read_text() == "begin end begin end "


def test_closing_kills_the_build_at_work_and_forgets_the_rest(builds, network, tmp_path):
    begun = tmp_path / "begun"
    one = builds(*script(f"open({str(begun)!r}, 'w'); import time; time.sleep(600)"))
    at_work, waiting = [one.order(Order(network, "onnxruntime", "cpu", None)) for _ in range(2)]
    while not begun.exists():
        time.sleep(0.01)
    one.close()
    with pytest.raises(EngineError, match="the build ended by -9"):
        at_work.result(0)
    with pytest.raises(CancelledError):
        waiting.result(0)


def test_the_command_carries_every_argument(network):
    command = build_here(Order(network, "tensorrt-rtx", "cuda:1", {"x": (1, 3, 4, 6)}))
    assert command[3:] == [str(network), "tensorrt-rtx", "cuda:1", '{"x": [1, 3, 4, 6]}']
