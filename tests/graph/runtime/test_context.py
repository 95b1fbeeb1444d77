"""Loops of the stages are compiled where a run is prepared, which is told, and never while frames flow."""

import os
import subprocess
import sys

import pytest

from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime import context

_RUN = """
import pkgutil, sys
from numba.core import event
from warpfuse.benchmark.loop import PlainLoop
from warpfuse.benchmark.ways import pictures_of
from warpfuse.graph.runtime import context as opening
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.streams import Streams
from warpfuse.stages import cpu

lines, compiled = [], []

class Compiling(event.Listener):
    def on_start(self, happened): compiled.append(happened)
    def on_end(self, happened): pass

config = validate({"source": "pattern:64x64@25,frames=4", "sinks": ["null:"], "size": "64x64", "threads": 1})
if sys.argv[1] == "control":
    opening.compile_all = lambda say: None
if sys.argv[1] == "streams":
    streams = Streams({"a": config})
    networks = opening.open_networks(streams.configs, lines.append, streams)
    context = networks.context(config, (64, 64), lines.append)
else:
    context = opening.prepare(config, (64, 64), lines.append)
print("not imported", [m.name for m in pkgutil.iter_modules(cpu.__path__, "warpfuse.stages.cpu.")
                       if m.name not in sys.modules])
print("told", sum("compiling" in line for line in lines))
with event.install_listener("numba:compile", Compiling()), PlainLoop(context) as loop:
    for raw in pictures_of(config, (64, 64)):
        loop.step(raw)
print("meanwhile", len(compiled) > 0)
"""


def run(folder, how):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, how], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_loops_are_compiled_before_frames_flow_and_once(tmp_path):
    assert run(tmp_path, "run") == ["not imported []", "told 1", "meanwhile False"]
    assert run(tmp_path, "streams") == ["not imported []", "told 0", "meanwhile False"]


def test_a_loop_compiled_while_frames_flow_is_noticed(tmp_path):
    """The control."""
    assert run(tmp_path, "control")[1:] == ["told 0", "meanwhile True"]


@pytest.mark.parametrize("device, flow, compiled", [
    ("cpu", "dis", 1), ("cpu", "embedded", 1), ("cuda:0", "dis", 1), ("cuda:0", "embedded", 0),
])  # fmt: skip
def test_a_card_has_loops_beside_dis(monkeypatch, device, flow, compiled):
    said = []
    monkeypatch.setattr(context, "compile_all", said.append)
    config = validate({"source": "pattern:", "sinks": ["null:"], "device": device, "flow": flow})
    context.compile_loops(config, print)
    assert len(said) == compiled
