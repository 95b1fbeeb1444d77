"""Law: nothing that lies in a damaged clip ends in anything but an error of ours, and no half-written file is left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import damage

FUZZ = Path(__file__).resolve().parents[3] / "bench" / "fuzz_sources.py"


@pytest.mark.parametrize("seed", [7, 8])
def test_damaged_clips_are_read_as_far_as_they_go_or_refused_in_one_line(seed: int):
    command = [sys.executable, str(FUZZ), "--count", "144", "--seed", str(seed), "--limit", "60"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    counts = json.loads(ended.stdout.splitlines()[-1])
    assert counts["variants"] == counts["read"] + counts["refused"] + counts["broken"] == 144
    assert counts["read"] > 50 and counts["refused"] > 10  # guards the test: the damage is neither none nor total


def test_a_fault_would_be_found(tmp_path: Path):
    """The worker of the fuzzer, over a reader that has one."""
    faulty = "import sys, fuzz_sources as f; f.read = lambda path, number: {}[number]; f.work(f.Path(sys.argv[1]), 0)"
    ended = subprocess.run(
        [sys.executable, "-c", faulty, str(tmp_path)],
        input="clip.ts 5\n",
        cwd=FUZZ.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    outcome, told = json.loads(ended.stdout.splitlines()[-1])
    assert outcome == "traceback" and "KeyError: 5" in told


def test_variants_are_damaged_and_the_same_each_time():
    whole = damage.seeds()
    assert len(whole) >= 10
    for name, data in whole.items():
        variants = [damage.variant(name, data, number) for number in range(20)]
        assert variants == [damage.variant(name, data, number) for number in range(20)]
        assert sum(variant == data for variant in variants) <= 2 and len(set(variants)) >= 18
