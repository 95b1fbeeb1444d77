"""Whoever only captures or shows loads neither torch nor the compiler of the loops: half a gigabyte, and seconds."""

import subprocess
import sys

_HEAVY = ("torch", "numba")
_ALL = """
import importlib, pkgutil, sys
import warpfuse.stages.sinks, warpfuse.stages.sources
for package in (warpfuse.stages.sources, warpfuse.stages.sinks):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""


def loaded(code):
    code += f"\nprint([name for name in {_HEAVY} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_sources_and_sinks_are_light():
    assert loaded(_ALL) == "[]"


def test_what_is_not_light_is_noticed():
    """The control."""
    assert loaded("import sys, warpfuse.stages.transfer.download") == str(list(_HEAVY))
