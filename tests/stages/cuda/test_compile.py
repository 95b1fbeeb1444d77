"""The kernels become machine code for the cards that people have, without a card, and fit into their registers."""

import re

import pytest
import torch
from support.card import card
from support.card.kernels import COMPILER, parameters

from warpfuse.engine import device
from warpfuse.engine.cuda_kernels import binary
from warpfuse.engine.cuda_streams import new_stream, on, reads, wrote
from warpfuse.engine.errors import BackendMissing, EngineError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import open_networks
from warpfuse.stages import cuda, formulas
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.cuda.kernels import launch, missing, names, source

USED = re.compile(r"entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers", re.DOTALL)


def gone():
    raise ImportError("No module named 'cuda'")


@pytest.fixture
def compiler():
    try:
        binary("", (8, 9))
    except BackendMissing as error:
        pytest.skip(f"no NVRTC: {error}")


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (12, 0)])
def test_they_are_compiled_and_nothing_is_spilled(compiler, capability):
    code, said = binary(source(), capability)
    assert code.startswith(b"\x7fELF") and all(name.encode() in code for name in names())
    used = {name: (int(spilled), int(registers)) for name, spilled, registers in USED.findall(said)}
    assert sorted(used) == sorted(names())
    # Two blocks of 256 threads of every kernel find room in a multiprocessor's 65 536 registers.
    assert all(spilled == 0 and registers <= 128 for spilled, registers in used.values()), used


def test_a_card_newer_than_the_compiler_gets_what_its_driver_translates(compiler):
    code, _ = binary('extern "C" __global__ void nothing() {}', (99, 0))
    assert b".target compute_" in code or b".target sm_" in code


def test_a_source_that_is_wrong_is_refused_with_what_the_compiler_says(compiler):
    with pytest.raises(EngineError, match="undefined"):
        binary('extern "C" __global__ void wrong(int *x) { *x = undefined; }', (8, 9))


def test_every_kernel_is_found_with_what_it_takes():
    assert sorted(parameters(source())) == sorted(names()) and len(names()) > 10


@pytest.mark.skipif(COMPILER is None, reason="no C compiler: the simulated card compiles the kernels with one")
@pytest.mark.parametrize("lacks", ["driver bindings", "compiler"])
def test_without_the_compiler_formulas_run_and_the_remedy_is_named(lacks, monkeypatch):
    class Gone:
        def nvrtcGetSupportedArchs(self):  # noqa: N802
            raise RuntimeError("Failure finding nvrtc*.so\nsearched here\nand there")

    with card():
        assert arithmetic("cuda:0") is cuda and missing("cuda:0") is None, "the control"
    with card():
        monkeypatch.setattr(device, "nvrtc", gone if lacks == "driver bindings" else Gone)
        assert arithmetic("cuda:0") is formulas
        said = missing("cuda:0")
        assert "pip install 'warpfuse[cuda]' nvidia-cuda-nvrtc" in said and "\n" not in said


@pytest.mark.parametrize("lacks", [True, False])
def test_the_first_line_of_a_run_says_that_there_are_none(exact_bundle, lacks, monkeypatch):
    config = validate({"source": "pattern:48x32@25,frames=2", "bundle": str(exact_bundle), "device": "cuda:0"})
    said = []
    with card():
        if lacks:
            monkeypatch.setattr(device, "nvrtc", gone)
        open_networks({"": config}, said.append).close()
    assert ("by torch" in said[0] and "pip install" in said[0]) is lacks


@pytest.mark.skipif(COMPILER is None, reason="no C compiler: the simulated card compiles the kernels with one")
@pytest.mark.parametrize("waits", [True, False])
def test_a_kernel_that_reads_too_early_is_noticed(waits):
    with card() as sim:
        ops, writer, reader = arithmetic("cuda:0"), new_stream("cuda:0"), new_stream("cuda:0")
        with on(writer):
            pixels = ops.planes_of(torch.zeros(8, 8, 3, dtype=torch.uint8, device="cuda:0"))
            written = wrote("cuda:0")
        if waits:
            reads([pixels], written, reader)
        with on(reader):
            ops.bytes_of(pixels)
    assert bool(sim.races) is not waits
    assert sim.kernels["", "planes_of"] == sim.kernels["", "bytes_of"] == 1


@pytest.mark.skipif(COMPILER is None, reason="no C compiler: the simulated card compiles the kernels with one")
def test_the_simulated_card_refuses_what_a_kernel_does_not_take():
    with card():
        assert missing("cuda:0") is None
        x = torch.zeros(1, 3, 8, 8, device="cuda:0")
        with pytest.raises(AssertionError, match="bytes_of takes other types"):
            launch("bytes_of", (1,), x, x, torch.empty(8, 8, 3, dtype=torch.uint8, device="cuda:0"), 3.0, 64)
