"""CUDA kernels of our own: compiled for a card from their source, and launched on the current stream.

NVRTC compiles all of them in about a second, needs no card for it, and comes with torch for CUDA. A launch passes the
addresses of tensors, so nothing is copied, and it can be captured in a CUDA graph.
"""

import ctypes
import threading
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.engine.errors import BackendMissing, EngineError

BLOCK = 256
"""Threads of a block."""

Argument = Tensor | int | float | None

_own = threading.local()  # devices that are current in this thread's CUDA context


def binary(source: str, capability: tuple[int, int]) -> tuple[bytes, str]:
    """Machine code of a CUDA C++ source for a compute capability, and what the compiler says of its kernels.

    For a card newer than the compiler it is PTX, which the driver translates. Raises BackendMissing without the
    compiler, and EngineError for a source that it refuses.
    """
    try:
        compiler = card.nvrtc()
        known = _done(compiler.nvrtcGetSupportedArchs())[0]
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendMissing(
            f"CUDA kernels cannot be compiled: {str(error).splitlines()[0]}. "
            f"Install the compiler: pip install 'warpfuse[cuda]' nvidia-cuda-nvrtc"
        ) from None
    wanted = 10 * capability[0] + capability[1]
    architecture = f"sm_{wanted}" if wanted in known else f"compute_{max(n for n in known if n <= wanted)}"
    program = _done(compiler.nvrtcCreateProgram(source.encode(), b"warpfuse.cu", 0, [], []))[0]
    options = [f"--gpu-architecture={architecture}".encode(), b"--ptxas-options=-v"]
    status = compiler.nvrtcCompileProgram(program, len(options), options)[0]
    log = bytearray(_done(compiler.nvrtcGetProgramLogSize(program))[0])
    _done(compiler.nvrtcGetProgramLog(program, log))
    said = log.decode(errors="replace").rstrip("\0\n")
    if int(status) != 0:
        raise EngineError(f"CUDA kernels cannot be compiled for {architecture} ({status.name}): {said}")
    is_machine_code = architecture.startswith("sm_")
    size = compiler.nvrtcGetCUBINSize if is_machine_code else compiler.nvrtcGetPTXSize
    copied = compiler.nvrtcGetCUBIN if is_machine_code else compiler.nvrtcGetPTX
    code = bytearray(_done(size(program))[0])
    _done(copied(program, code))
    _done(compiler.nvrtcDestroyProgram(program))
    return bytes(code), said


def lacking() -> str | None:
    """Why no kernels can be compiled on this machine, with the remedy; None: they can. Uses no card."""
    try:
        binary("", (8, 9))
    except BackendMissing as error:
        return str(error)
    return None


class Kernels:
    """The kernels of a source on one card. They stay loaded as long as the process.

    Raises BackendMissing without NVRTC or cuda-bindings.
    """

    def __init__(self, source: str, names: Iterable[str], device: str | torch.device) -> None:
        self._index = card.index_of(device)
        code, _ = binary(source, card.capability_of(device))
        self._enter()
        driver = card.driver()
        with card.alone():  # loading may wait for the whole device
            module = _done(driver.cuModuleLoadData(code))[0]
            self._functions = {name: _done(driver.cuModuleGetFunction(module, name.encode()))[0] for name in names}

    def __call__(self, name: str, grid: tuple[int, ...], *arguments: Argument) -> None:
        """Launch a kernel on the current stream, in blocks of BLOCK threads.

        grid       blocks in up to three dimensions
        arguments  of the kernel, in its order: tensors, which must be contiguous, on the card and stay alive until the
                   stream has done the work; int and float, which become 32 bits; None, a null pointer
        """
        self._enter()
        x, y, z = (*grid, 1, 1)[:3]
        values, types = zip(*(_passed(one) for one in arguments), strict=True)
        stream = card.current(torch.device("cuda", self._index)).cuda_stream
        function = self._functions[name]
        _done(card.driver().cuLaunchKernel(function, x, y, z, BLOCK, 1, 1, 0, stream, (values, types), 0))

    def _enter(self) -> None:
        """Make the card's context current: a new thread has none until torch first calls the runtime."""
        if getattr(_own, "index", None) != self._index:
            _done(card.runtime().cudaSetDevice(self._index))
            _own.index = self._index


def _passed(argument: Argument) -> tuple[Any, Any]:
    if argument is None:
        return 0, ctypes.c_void_p
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return argument.data_ptr(), ctypes.c_void_p
    return argument, ctypes.c_int if isinstance(argument, int) else ctypes.c_float


def _done(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The results of a call of cuda-bindings. Raises EngineError for a status other than success."""
    status, *results = given
    if int(status) != 0:
        raise EngineError(f"a CUDA kernel cannot be loaded or launched: {status.name}")
    return tuple(results)
