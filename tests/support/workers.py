"""Graphs of several processes: `go` runs one and checks that it leaves nothing, `inside` runs code in every worker."""

import os

import psutil
import pytest

from warpfuse.graph.plan.config import validate
from warpfuse.graph.processes.process_run import ProcessRun
from warpfuse.graph.run import run

STAGES = ["upload", "encode", "flow", "warp", "encode_past", "predict", "fuse", "decode", "download"]


@pytest.fixture
def go(exact_bundle, tmp_path, monkeypatch, short_folder):
    """Run a graph; `during` is called with the supervisor whenever a frame has been shown, until it returns True."""
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    monkeypatch.setenv("WARPFUSE_SHM", str(tmp_path))

    def run_it(during=None, **keys):
        if during is not None:
            waiting = [during]
            turn = ProcessRun.turn

            def turning(self):
                turn(self)
                if waiting and self._shown() > 0 and waiting[0](self):
                    waiting.clear()

            monkeypatch.setattr(ProcessRun, "turn", turning)
        defaults = {"sinks": [str(tmp_path / "out.mp4")], "bundle": exact_bundle, "prompt": "noisy", "fusion": 0.8}
        said = []
        stats = run(validate({**defaults, **keys}), say=said.append)
        return stats, said

    before = set(psutil.Process().children())  # other tests' helpers
    yield run_it
    assert set(psutil.Process().children()) <= before, "a process was left"
    assert not list(short_folder.glob("warpfuse/*")), "a socket was left"
    memory = tmp_path / f"warpfuse-{os.getuid()}"
    assert not [path for path in memory.iterdir() if path.is_dir()] if memory.exists() else True


def inside(tmp_path, monkeypatch, code):
    """Run code in every worker process, before it does anything: Python imports `sitecustomize` by itself."""
    (tmp_path / "sitecustomize.py").write_text(code)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
