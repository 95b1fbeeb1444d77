"""`make card`: one report of a card, by a script that can be rehearsed without one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "bench" / "card.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("card_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))  # as for a script that is run
        spec.loader.exec_module(module)
    return module


def go(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], env={**os.environ, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_a_rehearsal_goes_through_every_step_and_is_not_done_twice(script, tmp_path):
    done = go("--dry-run", "--out", tmp_path)
    report = json.loads((tmp_path / "card-dry-run.json").read_text())
    failed = {name: one["said"] for name, one in report["steps"].items() if one["code"] != 0}
    assert done.returncode == 0 and not failed, failed
    assert list(report["steps"]) == [step.name for step in script.steps_for(None, tmp_path)]
    errors = report["steps"]["parity"]["result"]
    assert errors["onnxruntime"]["unet"] < 0.05 and errors["torch"]["unet"] < 0.05
    again = go("--dry-run", "--out", tmp_path)
    assert again.returncode == 0 and again.stdout.count("done before") == len(report["steps"])


def test_what_there_is_no_time_for_is_named_and_done_the_next_time(script, tmp_path):
    done = go("--dry-run", "--out", tmp_path, "--minutes", "0")
    assert done.returncode == 1 and done.stdout.count("left out: no time is left") == 7
    report = json.loads((tmp_path / "card-dry-run.json").read_text())
    assert all(one["code"] is None for one in report["steps"].values())


@pytest.mark.parametrize(
    "told, says",
    [
        ("NVIDIA GeForce RTX 4090, 570.86.10, 24564 MiB, 8.9", "driver 570.86.10 is too old, expected 580 or newer"),
        ("", "nvidia-smi finds no card"),
    ],
)
def test_a_card_that_cannot_be_used_is_told_in_one_line(tmp_path, told, says):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho '{told}'\nexit {0 if told else 6}\n")
    smi.chmod(0o755)
    done = go("--out", tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1 and says in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    "capability, extra", [("8.9", "tensorrt-rtx"), ("12.0", "tensorrt-rtx"), ("8.0", "tensorrt"), ("9.0", "tensorrt")]
)
def test_tensorrt_is_that_of_the_card(script, tmp_path, capability, extra):
    card = script.Card("a card", "580.1", "24564 MiB", capability)
    install = script.steps_for(card, tmp_path)[0].command
    assert f".[cuda,{extra},export,bench,test,web,osc]" in install and "constraints-cuda.txt" in install
    times = [step.seconds for step in script.steps_for(card, tmp_path)]
    assert all(seconds <= 60 * script.MINUTES for seconds in times)


def test_windows_takes_the_torch_that_knows_cards(script):
    (option, index), pins = script.torch_index("win32"), (ROOT / "constraints-cuda.txt").read_text()
    assert option == "--extra-index-url" and index.endswith("/cu130") and "all of CUDA 13" in pins
    assert script.torch_index("linux") == []


def test_versions_are_pinned_and_allowed_by_what_the_package_asks_for():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints-cuda.txt").read_text().split("\n") if line and line[0] != "#"
    )
    assert {"torch", "cuda-bindings", "onnxruntime-gpu", "tensorrt-cu13"} <= pins.keys()
    plain = (ROOT / "constraints.txt").read_text().split("\n")
    for name in ("torch", "cuda-bindings"):
        (pinned,) = [line for line in plain if line.startswith(f"{name}==")]
        assert pinned.partition("==")[2].partition("+")[0] == pins[name], "the same in both"
