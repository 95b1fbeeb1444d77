"""Law: help, version and every mistake that can be seen early are told before a network library is loaded.

Told by what was imported, not by time: torch takes two seconds, all that is needed here a third of one.
"""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numba", "onnxruntime", "scipy", "fastapi", "aiortc")

MEASURE = """
import contextlib, io, json, sys
from warpfuse.cli import main
told = []
commands, heavy = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for arguments in commands:
    sys.argv = ["warpfuse", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    told.append((code, out.getvalue(), err.getvalue(), [name for name in heavy if name in sys.modules]))
print(json.dumps(told))
"""

PATTERN = ["--source", "pattern:96x64@25,frames=3"]
MISTAKES = [
    ["run"],
    ["run", *PATTERN],
    ["run", "--nonsense"],
    ["run", "x" * 300],
    ["run", "--source", "x" * 300, "--sink", "null:"],
    ["run", *PATTERN, "--sink", f"{'x' * 300}.mp4"],
    ["run", *PATTERN, "--sink", "null:", "--bundle", "x" * 300],
    ["run", *PATTERN, "--sink", "/nowhere/out.mp4"],
    ["run", *PATTERN, "--sink", "out.xyz"],
    ["run", *PATTERN, "--sink", "ftp:x"],
    ["run", *PATTERN, "--sink", "null:", "--prompt", "castle"],
    ["run", *PATTERN, "--sink", "null:", "--lora", "ink=1"],
    ["run", *PATTERN, "--page", "0", "--prompt", "castle"],
    ["run", *PATTERN, *PATTERN, "--sink", "null:", "--sink", "null:", "--prompt", "castle"],
    ["run", *PATTERN, "--sink", "null:", "--keyframe", "gone.png"],
    ["run", *PATTERN, "--sink", "null:", "--keyframe", "gone.png:1.5"],
    ["run", *PATTERN, "--sink", "null:", "--size", "big"],
    ["run", *PATTERN, "--sink", "null:", "--size", "17x17"],
    ["run", *PATTERN, "--sink", "null:", "--steps", "99"],
    ["run", *PATTERN, "--sink", "null:", "--bundle", "nothing"],
    ["run", *PATTERN, "--sink", "null:", "--set", "stages.fuse.wieght=1"],
    ["run", *PATTERN, *PATTERN, "--sink", "null:"],
    ["run", "--source", "nothing.mp4", "--sink", "null:"],
    ["run", "--source", __file__, "--sink", "null:"],
    ["run", "nothing.yaml"],
    ["run", "nothing.mp4", "null:"],
    ["run", "nothing.mp4", "b.mp4", "c.mp4"],
    ["run", *PATTERN, "--sink", "null:", "--flow", "nothing"],
    ["run", *PATTERN, "--sink", "null:", "--flow", "./nothing"],
    ["run", *PATTERN, "--sink", "null:", "--bundle", "embedded-flow"],
    ["serve", "--size", "big"],
    ["serve", "--source", "nothing.mp4"],
    ["serve", *PATTERN, "--prompt", "castle"],
    ["serve", *PATTERN, "--bundle", "nothing"],
    ["graph", "nothing.yaml"],
    ["ctl", "nobody", "stats"],
    ["nonsense"],
]


def measured(*commands):
    """(exit code, stdout, stderr, heavy modules that are loaded by then) of each, one after the other."""
    asked = [sys.executable, "-c", MEASURE, json.dumps(commands), json.dumps(HEAVY)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def told():
    return dict(zip(map(" ".join, MISTAKES), measured(*MISTAKES), strict=True))


@pytest.mark.parametrize("command", [" ".join(words) for words in MISTAKES])
def test_a_mistake_is_one_line_and_costs_no_network_library(told, command):
    code, out, err, loaded = told[command]
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    assert loaded == []


def test_help_and_version_cost_nothing_but_the_command_line():
    light = measured(["--help"], ["--version"], ["version"], ["run", "--help"], ["serve", "--help"])
    assert [(code, loaded) for code, _, _, loaded in light] == [(0, [])] * 5
    assert light[1][1] == light[2][1] and light[1][1].count(".") == 2


def test_the_control_what_is_no_mistake_loads_torch():
    ((code, _, _, loaded),) = measured(["run", *PATTERN, "--sink", "null:", "--backend", "nobodys"])
    assert code == 2 and "torch" in loaded, "only opening the backend finds it"
