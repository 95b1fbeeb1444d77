"""The one place that names CUDA: nobody else does, streams are nobody else's, and captures are not disturbed."""

import ctypes
import re
import threading
from pathlib import Path

import pytest
import torch
from support.card import card, scenarios
from support.card.cuda import DEALT, Status

import warpfuse
from warpfuse.engine import device
from warpfuse.engine.artifacts import cache_folder
from warpfuse.engine.cuda_streams import new_stream, on
from warpfuse.engine.errors import BackendMissing
from warpfuse.engine.replay import Replay
from warpfuse.graph.links.cuda_ipc import handle_bytes, handle_of

CARD = "cuda:0"
NAMED = re.compile(r"\b(torch\.cuda\.|from torch\.cuda|import torch\.cuda|cuda\.bindings)")


def test_nothing_else_names_torch_cuda_or_the_runtime():
    (root,) = map(Path, warpfuse.__path__)
    named = {str(path.relative_to(root)) for path in root.rglob("*.py") if NAMED.search(path.read_text())}
    assert named == {"engine/device.py"}


def test_a_stream_is_nobody_elses_and_goes_to_the_next_when_its_owner_is_gone():
    with card() as sim:
        dealt = [sim.cuda.Stream() for _ in range(DEALT + 1)]
        assert dealt[0].cuda_stream == dealt[-1].cuda_stream, "control: torch's own come round"
        streams = [new_stream(CARD) for _ in range(2 * DEALT)]
        handles = {stream.cuda_stream for stream in streams}
        assert len(handles) == 2 * DEALT
        del streams
        assert new_stream(CARD).cuda_stream in handles, "a run after a run needs no more"


def test_without_the_runtime_a_stream_is_refused_in_one_line(monkeypatch):
    def missing():
        raise ImportError("No module named 'cuda'")

    with card() as sim:
        monkeypatch.setattr(device, "runtime", missing)
        with pytest.raises(BackendMissing, match=r"cuda-bindings cannot be loaded.*pip install 'warpfuse\[cuda\]'"):
            new_stream(CARD)
        monkeypatch.setattr(device, "runtime", lambda: sim.runtime)
        sim.runtime.cudaStreamCreateWithFlags = lambda flags: (Status(2, "cudaErrorMemoryAllocation"), None)
        with pytest.raises(BackendMissing, match="cudaErrorMemoryAllocation"):
            new_stream(CARD)


def replayed(outputs, launch):
    with on(new_stream(CARD)):
        x = torch.zeros(4, device=CARD)
        return Replay({"x": x}, outputs, launch)


@pytest.mark.parametrize("alone", [True, False])
def test_a_wait_for_the_device_does_not_break_a_capture(alone):
    """Another thread asks for one in the midst of it: it has to wait until the capture is over."""
    errors, threads = [], []

    def wait(sim):
        try:
            device.settle(CARD) if alone else sim.cuda.synchronize()
        except RuntimeError as error:
            errors.append(str(error))

    with card() as sim:
        outputs = [{"y": torch.zeros(4, device=CARD)} for _ in range(2)]

        def launch(slot):
            outputs[slot]["y"].fill_(1)
            if sim.captures:
                threads.append(threading.Thread(target=wait, args=(sim,)))
                threads[-1].start()
                if not alone:
                    threads[-1].join()

        if alone:
            replayed(outputs, launch)
        else:
            with pytest.raises(RuntimeError, match="901"):
                replayed(outputs, launch)
        for thread in threads:
            thread.join()
    assert threads and (not errors if alone else "900" in errors[0])  # False guards the test itself


@pytest.mark.parametrize("capturable", [True, False])
def test_a_network_that_cannot_be_captured_is_issued_anew(capturable):
    with card() as sim, on(new_stream(CARD)):
        outputs = [{"y": torch.zeros(4, device=CARD)} for _ in range(2)]
        x = torch.zeros(4, device=CARD)
        replay = Replay({"x": x}, outputs, lambda slot: outputs[slot]["y"].copy_(2 * x), lambda stream: capturable)
        got = [replay({"x": torch.full((4,), float(n), device=CARD)})["y"].tolist() for n in range(4)]
        assert got == [[2.0 * n] * 4 for n in range(4)]
        assert sim.graphs == (4 if capturable else 0) and not sim.races


def test_a_launch_that_fails_in_a_capture_is_told_by_its_own_reason():
    with card() as sim:
        outputs = [{"y": torch.zeros(4, device=CARD)} for _ in range(2)]

        def launch(slot):
            if sim.captures:
                raise ValueError("no such kernel")

        with pytest.raises(ValueError, match="no such kernel"):
            replayed(outputs, launch)
        assert not sim.captures


def test_the_bytes_of_a_handle_go_through_cuda_bindings_and_back():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    data = bytes(range(64))
    handle = handle_of(runtime, data)
    assert handle_bytes(handle) == data and ctypes.string_at(handle.getPtr(), 64) == data


@pytest.mark.parametrize(
    "call",
    ["cudaStreamCreateWithFlags", "cudaDeviceGetAttribute", "cudaMalloc", "cudaFree", "cudaIpcGetMemHandle",
     "cudaIpcOpenMemHandle", "cudaIpcCloseMemHandle"],
)  # fmt: skip
def test_what_is_called_is_in_cuda_bindings(call):
    runtime = pytest.importorskip("cuda.bindings.runtime")
    assert callable(getattr(runtime, call)) and runtime.cudaIpcMemLazyEnablePeerAccess
    assert runtime.cudaDeviceAttr.cudaDevAttrIpcEventSupport and runtime.cudaStreamNonBlocking == 1


def test_plans_for_the_simulated_card_are_not_left_to_the_user(short_folder, monkeypatch):
    """They would stay for ever, and hold the same name as a plan that is real."""
    monkeypatch.setenv("WARPFUSE_CACHE", str(short_folder / "of the user"))
    with card() as sim:
        scenarios.a_plan_runs(sim, short_folder)
        assert any(cache_folder().iterdir())
    assert not (short_folder / "of the user").exists()
