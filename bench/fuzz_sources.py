"""Reading damaged clips by the sources, and their sound by a sink: are there errors other than warpfuse's own?

    nice -n 5 python bench/fuzz_sources.py [--count 20000] [--seed 0] [--limit 20] [--only clip.mkv:123] [--keep DIR]

Each variant (tests/support/damage.py) is read to its end by a worker process: every third like a live stream, every
third into a file with its sound. A worker that exceeds the time limit is killed and counts as hanging; one that dies
counts as crashed. Variants that hang, crash or raise other errors are listed and kept. Last line: one JSON object.
"""

import argparse
import collections
import contextlib
import json
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from support import damage

from warpfuse.stages.errors import SinkLost
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source, probe
from warpfuse.stages.sources.faults import EXPECTED, broken
from warpfuse.stages.sources.stream import StreamSession

MEMORY = 6 << 30  # bytes a worker may have: more is an absurd size that was believed
ENDINGS = ("mp4", "mkv", "webm", "mov")
SIZE = (64, 48)
PROGRESS = 500  # variants


def read(path: Path, number: int) -> str:
    """The outcome of one variant: `read`, `refused` or `broken`. Errors other than warpfuse's are raised."""
    from warpfuse.engine.errors import WarpfuseError

    if number % 3 == 1:
        return stream(path)
    try:
        info = probe(str(path))
        plain = number % 2 and info.width * info.height <= 1 << 22
        source = open_source(str(path), size=None if plain else SIZE)
    except WarpfuseError as error:
        assert "\n" not in str(error), "an error of two lines"
        return "refused"
    with contextlib.closing(source):
        if number % 3 == 2:
            restyle(source, path, number, info)
        else:
            for frame in iter(source.read, None):
                assert frame.rgb.shape[2] == 3
        assert "\n" not in (source.warning or "")
    return "read"


def restyle(source: Any, path: Path, number: int, info: Any) -> None:
    target = path.with_suffix(f".out.{ENDINGS[number % len(ENDINGS)]}")
    size = (source.info.width, source.info.height) if number % 2 and info.width * info.height <= 1 << 22 else SIZE
    sink = open_sink(str(target), source.info, size, sound_from=str(path))
    try:
        for frame in iter(source.read, None):
            sink.write(frame)
        sink.close(True)
    except SinkLost as error:
        raise AssertionError(f"the sink is blamed for its input: {error}") from None
    finally:
        sink.close(False)
        left = [found for found in path.parent.iterdir() if found not in (path, target)]
        target.unlink(missing_ok=True)
        assert not left, f"left behind: {left}"


def stream(path: Path) -> str:
    """Read a variant like a live stream: `pictures` of a session, without a network."""
    try:
        session = StreamSession(str(path), {"protocol_whitelist": "file"}, clips=True)
        with contextlib.closing(session):
            for _ in session.pictures():
                pass
    except EXPECTED as error:
        assert "\n" not in str(broken(error)), "an error of two lines"
        return "broken"
    return "read"


def work(folder: Path, seed: int) -> None:
    """Take `name number` from stdin, answer with one line of JSON each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    whole = damage.seeds()
    print("ready", flush=True)
    for line in sys.stdin:
        name, number = line.split()
        path = folder / name
        path.write_bytes(damage.variant(name, whole[name], int(number), seed))
        try:
            outcome, told = read(path, int(number)), ""
        except Exception:  # noqa: BLE001  (what is looked for)
            outcome, told = "traceback", traceback.format_exc()
        path.unlink()
        print(json.dumps([outcome, told]), flush=True)


class Worker:
    """A reading process, which is restarted after it died or hung."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.process: subprocess.Popen[str] | None = None

    def read(self, name: str, number: int, limit: float) -> tuple[str, str]:
        """(outcome, traceback) of one variant, within `limit` seconds."""
        process = self.process or self.start()
        process.stdin.write(f"{name} {number}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], limit)[0]:
            self.end()
            return "hang", ""
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.end()
            return "crash", f"exit {code}"
        outcome, told = json.loads(line)
        return outcome, told

    def start(self) -> "subprocess.Popen[str]":
        """Start a process and wait until it is ready."""
        command = [sys.executable, __file__, "--work", str(self.folder), "--seed", str(self.seed)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        return self.process

    def end(self) -> None:
        """Kill the process, and remove its files."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for left in self.folder.iterdir():
            left.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=20, help="seconds for a variant")
    parser.add_argument("--only", help="NAME:NUMBER, in this process")
    parser.add_argument("--keep", type=Path, help="where to keep variants that failed")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.seed)
        return
    whole = damage.seeds()
    with tempfile.TemporaryDirectory(prefix="wf-fuzz-", dir="/dev/shm") as folder:
        if options.only:
            name, _, number = options.only.partition(":")
            path = Path(folder) / name
            path.write_bytes(damage.variant(name, whole[name], int(number), options.seed))
            print(read(path, int(number)))
            return
        counts, faults = fuzz(options, whole, Path(folder))
    for fault in faults:
        print(*fault[:3], fault[3].strip().rpartition("\n")[2], sep="\t")
    print(json.dumps({"variants": options.count, "seed": options.seed, **counts}))
    sys.exit(1 if faults else 0)


def fuzz(options: Any, whole: dict[str, bytes], folder: Path) -> tuple[dict[str, Any], list[tuple[str, int, str, str]]]:
    worker, outcomes, faults = Worker(folder, options.seed), collections.Counter(), []
    by_name: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    names, begun, slowest = list(whole), time.monotonic(), 0.0
    for index in range(options.count):
        name, number = names[index % len(names)], index // len(names)
        before = time.monotonic()
        outcome, told = worker.read(name, number, options.limit)
        slowest = max(slowest, time.monotonic() - before)
        outcomes[outcome] += 1
        by_name[name][outcome] += 1
        if index % PROGRESS == PROGRESS - 1:
            print(f"{index + 1} of {options.count}: {dict(outcomes)}", file=sys.stderr, flush=True)
        if outcome in ("traceback", "crash", "hang"):
            faults.append((name, number, outcome, told))
            print(name, number, outcome, told, sep="\t", flush=True)
            if options.keep:
                options.keep.mkdir(exist_ok=True)
                damaged = damage.variant(name, whole[name], number, options.seed)
                (options.keep / f"{number}-{name}").write_bytes(damaged)
    worker.end()
    figures = {**outcomes, "slowest_s": round(slowest, 1), "minutes": round((time.monotonic() - begun) / 60, 1)}
    return {**figures, "of_each": {name: dict(count) for name, count in by_name.items()}}, faults


if __name__ == "__main__":
    main()
