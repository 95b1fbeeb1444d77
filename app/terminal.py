"""Input and output of commands: lines and a progress bar on stderr, signals, files of figures."""

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from warpfuse.engine.files import write_whole
from warpfuse.engine.redact import redact
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.stages.errors import StreamLost

if TYPE_CHECKING:
    from warpfuse.graph.metrics.meters import Stats

INTERRUPTED = 130

_HANG_UP: int | None = getattr(signal, "SIGHUP", None)
_ENDS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK") if hasattr(signal, name)
]
"""Signals that end a run: Ctrl-C, kill, a closed terminal or a logout, Ctrl-\\, Ctrl-Break of Windows."""


class _Stderr(io.TextIOBase):
    """The current stderr. If it is a closed terminal or a broken pipe, output is lost, but the run goes on."""

    def write(self, text: str) -> int:
        """Write the text, or nothing on an error."""
        with suppress(OSError, ValueError):
            _stderr().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or do nothing on an error."""
        with suppress(OSError, ValueError):
            _stderr().flush()

    def isatty(self) -> bool:
        """The stream is a terminal."""
        return _stderr().isatty()

    def fileno(self) -> int:
        """File descriptor of the stream, for asking its size and encoding."""
        return _stderr().fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return _stderr().encoding


def _stderr() -> TextIO:
    # While a bar is shown sys.stderr is rich's, which writes to the console, which writes to `_STDERR`.
    stream: TextIO = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
    return stream


_STDERR = _Stderr()
_HALVES = {(False, False): " ", (True, False): "\u2580", (False, True): "\u2584", (True, True): "\u2588"}
console = Console(file=cast(TextIO, _STDERR), highlight=False)


def say(line: str) -> None:
    """Print a line for the user."""
    console.print(redact(line), style="dim", markup=False)


def complain(text: str) -> None:
    """Print the error that ends the command, in one line."""
    print(f"warpfuse: {redact(' '.join(text.split()))}", file=_STDERR)


def tell_url(url: str) -> None:
    """Print the address of the page. It is not redacted, since its token is for the user who started the page."""
    print(f"control page: {url}", file=_STDERR, flush=True)


def show_code(url: str) -> None:
    """Print the address as a QR code for a phone, if stderr is a terminal."""
    if not _STDERR.isatty():
        return
    try:
        print(qr_code(url), file=_STDERR, flush=True)
    except ImportError:
        say("for a code that phones read: pip install 'warpfuse[web]'")


def qr_code(text: str) -> str:
    """A QR code of half blocks, two modules a character, always black on white."""
    import segno

    rows = [[bool(dark) for dark in row] for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    rows += [[False] * len(rows[0])] * (len(rows) % 2)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    lines = ("".join(_HALVES[pair] for pair in zip(*two, strict=True)) for two in pairs)
    return "\n".join(f"\x1b[30;107m{line}\x1b[0m" for line in lines)


@contextmanager
def stopped_by_signals(
    notice: str = "finishing what has been read; once more to stop at once",
) -> Iterator[threading.Event]:
    """An event that is set by the first signal of `_ENDS`. The second signal ends the process at once.

    A hang-up does not count as the second signal: a closing terminal sends it twice, by the kernel and by the shell,
    and a logout sends it after SIGTERM. Ignored signals (nohup) stay ignored.
    """
    stop = threading.Event()
    asked = 0

    def handler(number: int, _: object) -> None:
        nonlocal asked
        if number != _HANG_UP:
            asked += 1
        if asked > 1:
            os._exit(INTERRUPTED)
        if not stop.is_set():
            stop.set()
            say(notice)

    old = {one: signal.signal(one, handler) for one in _ENDS if signal.getsignal(one) is not signal.SIG_IGN}
    try:
        yield stop
    finally:
        for number, before in old.items():
            signal.signal(number, before)


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar, if stderr is a terminal. It is advanced by calls with (frames done, total or None)."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("frames", total=None, rate="")

        def advance(frames: int, total: int | None) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=frames, total=total, rate=f"{speed:.1f} fps" if speed else "")

        yield advance


def check_writable(path: Path) -> None:
    """Raise ConfigError unless a file can be written at this path."""
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written: give a file in a folder that exists and is writable")


@contextmanager
def figures_if_lost(stats: Path | None) -> Iterator[None]:
    """If a run ends by a lost source or sink, or a failed stage, write its figures before the error is passed on."""
    try:
        yield
    except (StreamLost, StageFailed) as lost:
        if stats is not None and lost.stats is not None:
            _write_json(stats, lost.stats.to_dict())
        raise


def finish(report: "Stats", stats: Path | None) -> int:
    """Write and print the figures of a run. Returns the exit code."""
    if stats is not None:
        _write_json(stats, report.to_dict())
    for name, figures in [*report.streams.items(), ("", report)]:
        latency = figures.latency
        console.print(
            f"{f'{name}: ' if name else ''}{figures.frames.out} frames of {figures.sizes} in "
            f"{figures.seconds:.1f} s, {figures.fps:.1f} fps; latency p50 {latency.ms(50):.0f} ms, "
            f"p95 {latency.ms(95):.0f}, p99 {latency.ms(99):.0f}{_waits(figures)}"
        )
    return INTERRUPTED if report.interrupted else 0


def _waits(figures: "Stats") -> str:
    """Text on the delays of the first picture and of changes of settings, and on dropped frames; "" without any."""
    first, control, share = figures.first_picture_s, figures.control, figures.dropped_share
    told = [f"first picture after {first:.1f} s"] if first is not None else []
    told += [f"a control after {control.ms(50):.0f} ms, p95 {control.ms(95):.0f}"] if control.count else []
    told += [f"{share:.1%} dropped"] if share else []
    return "".join(f"; {one}" for one in told)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())
