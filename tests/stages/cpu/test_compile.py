"""Kernels are compiled once for a machine, for the arrays they say, and that is told."""

import os
import subprocess
import sys

import numpy as np
import pytest

from warpfuse.stages.cpu.compile import Kernel, kernel
from warpfuse.stages.errors import KernelError

_MODULE = """
from warpfuse.stages.cpu.compile import kernel

@kernel("void(float32[::1], float32)")
def scale(x, by):
    for i in range(len(x)):
        x[i] *= by
"""
_USE = """
import numpy as np, scaling
from warpfuse.stages.cpu.compile import compile_all
compile_all(print)
x = np.ones(3, np.float32)
scaling.scale(x, np.float32(2))
print(x.sum())
"""


def _run(folder):
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "kept")}
    done = subprocess.run([sys.executable, "-c", _USE], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_kernel_is_compiled_once_and_that_is_told(tmp_path):
    (tmp_path / "scaling.py").write_text(_MODULE)
    first, second = _run(tmp_path), _run(tmp_path)
    assert first == ["compiling the picture loops for this processor: about ten seconds, once", "6.0"]
    assert second == ["6.0"]
    (tmp_path / "scaling.py").write_text(_MODULE.replace("*= by", "*= by + 1"))
    assert _run(tmp_path)[-1] == "9.0", "a change of the source did not renew the machine code"


def test_arrays_of_another_type_or_layout_are_refused():
    @kernel("float32(float32[:, ::1])")
    def first(x):
        return x[0, 0]

    assert first(np.ones((2, 3), np.float32)) == 1
    for other in (np.ones((2, 3)), np.ones((3, 2), np.float32).T):
        with pytest.raises(TypeError, match="No matching definition"):
            first(other)


def test_a_place_for_the_machine_code_that_is_missing_is_named():
    scope: dict[str, object] = {}
    exec("def nowhere(x):\n    return x", scope)  # no file, so no folder beside it
    with pytest.raises(KernelError, match=r"nowhere has to be kept.*NUMBA_CACHE_DIR="):
        Kernel(scope["nowhere"], "float32(float32)")(1.0)
