"""What is done before frames flow."""

import subprocess
import sys

from warpfuse.graph import opening
from warpfuse.graph.config import validate

_IMPORTED = """
import importlib, pkgutil
import warpfuse.graph.opening
from warpfuse.stages import host
from warpfuse.stages.host import kernel
names = [one.__name__ for one in kernel._kernels]
for module in pkgutil.iter_modules(host.__path__):
    importlib.import_module(f"{host.__name__}.{module.name}")
print(len(names), [one.__name__ for one in kernel._kernels[len(names):]])
"""


def test_loops_are_compiled_when_a_run_is_prepared(monkeypatch):
    told, lines = [], []
    monkeypatch.setattr(opening, "compile_all", told.append)
    config = validate({"source": "pattern:64x64@25,frames=2", "sinks": ["null:"], "size": "64x64"})
    opening.prepare(config, (64, 64), lines.append).close()
    assert len(told) == 1
    told[0]("a line")
    assert lines[-1] == "a line", "what is told reaches the user"


def test_none_is_left_for_when_frames_flow():
    """A loop that is imported later would be compiled by its first frame."""
    out = subprocess.run([sys.executable, "-c", _IMPORTED], capture_output=True, text=True, check=True).stdout
    count, _, late = out.strip().partition(" ")
    assert late == "[]" and int(count) > 5
