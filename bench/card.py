"""Tests and measurements on a card, in twelve minutes: is the result right, and how fast is it?

    python bench/card.py [--out FOLDER] [--minutes M] [--dry-run]

Installs by constraints-cuda.txt, runs the card's tests, a short pass of torch's stream sanitizer, the parity of every
backend on SD-Turbo's architecture with random weights at 512x512, and the benches against floor and peer. Writes
FOLDER/card-NAME.json after every step and prints a table. If it is started again, it continues after the last
successful step. Steps for which no time is left are listed as left out. Please send the file, for example attached to
an issue.

--dry-run makes the same steps on the CPU with the smallest sizes, and lists those that need a card.

It imports only the standard library, since the packages are installed by its first step.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import card_model

ROOT = Path(__file__).resolve().parent.parent
OLDEST_DRIVER = 580
MINUTES = 12.0
RTX = re.compile(r"^(7\.5|8\.[69]|12\.\d)$")
"""Compute capabilities that TensorRT-RTX builds for and that are sold as RTX; 8.0 (A100) takes TensorRT."""


@dataclass(frozen=True)
class Card:
    """What nvidia-smi says of the first card."""

    name: str
    driver: str
    memory: str
    capability: str

    @property
    def tensorrt(self) -> str:
        """The extra of pyproject.toml with the TensorRT for it."""
        return "tensorrt-rtx" if RTX.match(self.capability) else "tensorrt"


@dataclass(frozen=True)
class Step:
    """A command. The last line of its output may be one JSON object, its result. seconds: the time limit."""

    name: str
    command: list[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """The outcome of a step. code: exit code of the command; None: it was left out or timed out, see `said`."""

    code: int | None
    seconds: float
    said: str
    result: Any = None


def find_card() -> Card:
    """The first card. Raises SystemExit with one line if there is none, or its driver is too old."""
    query = "name,driver_version,memory.total,compute_cap"
    try:
        told = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"card: nvidia-smi finds no card ({error}). Install the driver, or give --dry-run") from None
    card = Card(*(part.strip() for part in told.stdout.splitlines()[0].split(",")))
    if int(card.driver.partition(".")[0]) < OLDEST_DRIVER:
        raise SystemExit(f"card: driver {card.driver} is too old, expected {OLDEST_DRIVER} or newer. Update the driver")
    return card


def torch_index(platform: str) -> list[str]:
    """Options of pip, since PyPI's torch for Windows knows no card. platform: as `sys.platform`."""
    return ["--extra-index-url", "https://download.pytorch.org/whl/cu130"] if platform == "win32" else []


def steps_for(card: Card | None, out: Path) -> list[Step]:
    """The steps, the most important first. card: None on a dry run."""
    python, dry = sys.executable, card is None
    device, size, seconds = ("cpu", "64x64", "0.2") if dry else ("cuda:0", "512x512", "6")
    extras = f".[cuda,{'' if card is None else card.tensorrt},export,bench,test,web,osc]"
    install = [python, "-m", "pip", "install", "-q", "-c", "constraints-cuda.txt", "-c", "constraints.txt"]
    install += [*torch_index(sys.platform), "-e", extras, "-C", "editable_mode=strict"]
    tests = [python, "-m", "pytest", "-q", "--no-header", "-m", "gpu", "-o", "timeout=120"]
    only_found = ["--collect-only"] if dry else []
    streams = ["tests/engine/test_cuda_streams.py", "tests/graph/runtime/test_runner.py"]
    bench = [str(Path(python).with_name("warpfuse")), "bench", "--device", device, "--size", size, "--seconds", seconds]
    peer = [python, "bench/bench_peer.py", "--device", device, "--size", size, "--steps", "1"]
    parity = [python, "bench/card_parity.py", "--device", device, "--size", size]
    return [
        Step("install", [python, "--version"] if dry else install, 300),
        Step("tests", [*tests, "tests/engine", "tests/graph", "tests/stages/cuda", *only_found], 150),
        Step("sanitizer", [*tests, *streams, *only_found], 60, {"TORCH_CUDA_SANITIZER": "1"}),
        Step("parity", parity, 180),
        Step("bench", [*bench, "--json", str(out / "bench.json")], 90),
        Step("bench, flow on the card", [*bench, "--flow", "embedded", "--json", str(out / "bench-flow.json")], 90),
        Step("peer", [*peer, *(["--frames", "6", "--rounds", "1"] if dry else ["--frames", "200"])], 90),
    ]


def run(step: Step, limit_s: float) -> Outcome:
    """Run a step with a time limit in seconds."""
    began = time.monotonic()
    environment = {**os.environ, **step.environment}
    try:
        done = subprocess.run(
            step.command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=min(step.seconds, limit_s)
        )
    except subprocess.TimeoutExpired:
        return Outcome(None, time.monotonic() - began, "ran out of time")
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    said = lines[-1] if lines else ""
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
    try:
        result = json.loads(lines[-1]) if lines else None
    except ValueError:
        result = None
    return Outcome(done.returncode, time.monotonic() - began, said, result)


def main() -> int:
    parser = argparse.ArgumentParser(description="What a card can do, in one report.")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the report")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all steps together")
    parser.add_argument("--dry-run", action="store_true", help="the same steps on the CPU, with the smallest sizes")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    card = None if given.dry_run else find_card()
    name = "dry-run" if card is None else re.sub(r"[^A-Za-z0-9]+", "-", card.name).strip("-")
    path = out / f"card-{name}.json"
    report = json.loads(path.read_text()) if path.is_file() else {}
    report |= {"card": None if card is None else asdict(card), "steps": report.get("steps", {})}
    until = time.monotonic() + 60 * given.minutes
    for step in steps_for(card, out):
        before = report["steps"].get(step.name)
        if before is not None and before["code"] == 0:
            print(f"{step.name}: done before", flush=True)
            continue
        left_s = until - time.monotonic()
        print(f"{step.name}: {' '.join(step.command)}", flush=True)
        outcome = run(step, left_s) if left_s > 0 else Outcome(None, 0.0, "left out: no time is left")
        report["steps"][step.name] = asdict(outcome)
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps(report, indent=1))
        fresh.replace(path)
    print(table(report))
    for measured in sorted(out.glob("bench*.json")) if card is not None else ():  # the model is of a card
        print("\n".join(card_model.beside(measured)))
    print(f"written: {path}. Please attach it to an issue of warpfuse")
    return 0 if all(one["code"] == 0 for one in report["steps"].values()) else 1


def table(report: dict[str, Any]) -> str:
    """A line for each step."""
    lines = []
    for name, one in report["steps"].items():
        verdict = "ok" if one["code"] == 0 else "left out" if one["code"] is None else "FAILED"
        told = one["said"].splitlines()
        lines.append(f"{name:<24} {verdict:<9} {one['seconds']:6.1f} s  {told[-1][:90] if told else ''}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
