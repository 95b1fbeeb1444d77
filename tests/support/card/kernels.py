"""Kernels of the package's own on the simulated card: their source is compiled for the CPU by a C compiler.

Stands in for NVRTC and for the CUDA driver of cuda-bindings, as far as `warpfuse.engine.cuda_kernels` uses them. The
threads of a block run one after the other from barrier to barrier.
"""

import ctypes
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

SHIM = """
#include <math.h>
typedef struct { unsigned x, y, z; } Dim;
static __thread Dim blockIdx, gridDim;
#define KERNEL void
#define PART static inline
#define CALLED static
#define SHARED static __thread
#define EACH_THREAD(t) for (int t = 0; t < 256; ++t)
#define BARRIER()
#define COUNT_UP(at) ((at)++)
void at_block(unsigned x, unsigned y, unsigned z) { Dim at = {x, y, z}; blockIdx = at; }
void of_grid(unsigned x, unsigned y, unsigned z) { Dim grid = {x, y, z}; gridDim = grid; }
"""
"""The words of `stages/cuda/common.cu` for a CPU."""

COMPILER = shutil.which("gcc") or shutil.which("cc")

_TYPES = {"int": ctypes.c_int, "float": ctypes.c_float}


@cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="warpfuse-kernels")


@cache
def compiled(source):
    """The library of a source, as a path."""
    text, path = Path(_folder().name) / "kernels.c", Path(_folder().name) / f"{abs(hash(source))}.so"
    text.write_text(SHIM + source)
    options = ["-std=gnu11", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([COMPILER, *options, "-o", path, text, "-lm"], check=True)
    return path


@cache
def parameters(source):
    """Kernel -> what it takes: (C type, whether it is a pointer that is only read, or None) of each parameter."""
    found = {}
    for name, listed in re.findall(r"^KERNEL (\w+)\((.*?)\)", source, re.MULTILINE | re.DOTALL):
        told = [re.fullmatch(r"\s*(const )?\w+( \w+)? ?(\*?)\w+\s*", one) for one in listed.split(",")]
        found[name] = [(ctypes.c_void_p, bool(one[1])) if one[3] else (_TYPES[one[0].split()[0]], None) for one in told]
    return found


class Nvrtc:
    """`cuda.bindings.nvrtc`: machine code is the source."""

    def __init__(self, done):
        self._done = done

    def __getattr__(self, name):
        if COMPILER is None:
            raise ImportError("no C compiler")
        return {
            "nvrtcGetSupportedArchs": lambda: (self._done, [75, 80, 86, 89, 90, 100, 120]),
            "nvrtcCreateProgram": lambda source, *rest: (self._done, source),
            "nvrtcCompileProgram": lambda *told: (self._done,),
            "nvrtcGetCUBINSize": lambda source: (self._done, len(source)),
            "nvrtcGetProgramLogSize": lambda source: (self._done, 1),
            "nvrtcDestroyProgram": lambda source: (self._done,),
            "nvrtcGetProgramLog": lambda source, into: (self._done,),
            "nvrtcGetCUBIN": self._copied,
        }[name]

    def _copied(self, source, into):
        into[:] = source
        return (self._done,)


class Driver:
    """`cuda.bindings.driver`."""

    def __init__(self, card, done):
        self._card, self._done = card, done

    def cuModuleLoadData(self, code):  # noqa: N802
        return self._done, code.decode()

    def cuModuleGetFunction(self, source, name):  # noqa: N802
        library = ctypes.CDLL(str(compiled(source)))
        name = name.decode()
        function = getattr(library, name)
        function.restype = None
        takes = parameters(source)[name]
        function.argtypes = [kind for kind, _ in takes]
        return self._done, SimpleNamespace(name=name, call=function, takes=takes, library=library)

    def cuLaunchKernel(self, kernel, x, y, z, bx, by, bz, shared, stream, told, extra):  # noqa: N802
        assert (bx, by, bz, shared, extra) == (256, 1, 1, 0, 0) and min(x, y, z) > 0
        values, types = told
        assert list(types) == [kind for kind, _ in kernel.takes], f"{kernel.name} takes other types"
        reads, writes, kept = [], [], []
        for value, (kind, only_read) in zip(values, kernel.takes, strict=True):
            if kind is ctypes.c_void_p and value:
                tensor = self._card.local.addressed[value]()
                kept.append(tensor)
                span = self._card.arena.span_of(tensor)
                assert span is not None, f"{kernel.name} is given memory of the host"
                (reads if only_read else writes).append(span)
        self._card.local.addressed.clear()
        run = lambda: self._run(kernel, (x, y, z), values)  # noqa: E731
        self._card.kernel(kernel.name, reads, writes, run, kept=kept, stream=SimpleNamespace(key=("stream", stream)))
        return (self._done,)

    @staticmethod
    def _run(kernel, grid, values):
        kernel.library.of_grid(*grid)
        for z in range(grid[2]):
            for y in range(grid[1]):
                for x in range(grid[0]):
                    kernel.library.at_block(x, y, z)
                    kernel.call(*values)
