"""What the page controls: one run at a time, started, changed and stopped by whoever is let in."""

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

from warpfuse.engine.bundle import find_bundles, load_bundle
from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.redact import HIDDEN, redact
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.live_settings import merge
from warpfuse.stages.errors import Stopped
from warpfuse.stages.sources.schemes import scheme_of
from warpfuse.web.bell import Bell
from warpfuse.web.controls import Controls, OpenRun, Say
from warpfuse.web.local import LocalRun
from warpfuse.web.pictures import Pictures

State = Literal["stopped", "starting", "running", "paused", "ended", "failed"]

_LINES = 50


class NotRunning(ConfigError):
    """There is no run to do this to."""


class Session:
    """The run, its settings and its pictures. Thread-safe; `start` and `stop` wait for the graph.

    pictures      what is looked at
    changed       rings when the settings or the state did
    record_to     folder of recordings
    fixed_files   files on this machine can be named neither as source nor sink nor bundle: who is let in over a network
                  controls the run, not the disk
    """

    def __init__(
        self,
        keys: dict[str, Any],
        *,
        record_to: Path,
        fixed_files: bool = False,
        open_run: OpenRun = LocalRun,
        say: Say = lambda line: None,
    ) -> None:
        """Raises ConfigError for keys that cannot be used."""
        self.pictures = Pictures()
        self.changed = Bell()
        self.lines: deque[str] = deque(maxlen=_LINES)
        self._keys = keys
        self._config = validate(keys)
        self._record_to, self._fixed_files = record_to, fixed_files
        self._open_run, self._tell = open_run, say
        self._lock = threading.RLock()
        self._run: Controls | None = None
        self._thread: threading.Thread | None = None
        self._starting = self._paused = False
        self._stopping = threading.Event()
        self._error: WarpfuseError | None = None
        self._stats: Stats | None = None

    @property
    def state(self) -> State:
        """What the run does now."""
        if self._starting:
            return "starting"
        if self._run is not None:
            return "paused" if self._paused else "running"
        if self._error is not None:
            return "stopped" if isinstance(self._error, Stopped) else "failed"
        return "ended" if self._stats is not None and not self._stats.interrupted else "stopped"

    def settings(self) -> dict[str, Any]:
        """All keys, plain types only; addresses without what must stay secret in them."""
        keys = self._config.model_dump(mode="json")
        keys["source"], keys["sinks"] = redact(keys["source"]), [redact(sink) for sink in keys["sinks"]]
        return keys

    def given(self) -> dict[str, Any]:
        """The keys that differ from the defaults: what a preset holds."""
        return self._config.model_dump(mode="json", exclude_defaults=True)

    def change(self, keys: dict[str, Any]) -> int | None:
        """Lay keys over the settings; the version that frames read from now on carry, None while nothing runs.

        Raises NeedsRestart for keys that a running graph was built with, BadInput; then nothing changed."""
        with self._lock:
            wanted = self._allowed(keys)
            version = None if self._run is None else self._run.change(keys)
            self._take(wanted, keys)
        return version

    def start(self, keys: dict[str, Any] | None = None) -> None:
        """Start a run, with keys laid over the settings.

        Raises BadInput, StreamLost: what kept it from starting; Stopped, if `stop` came first."""
        with self._lock:
            if self._run is not None:
                raise ConfigError("it runs already; stop it first, or restart")
            self._take(self._allowed(keys or {}), keys or {})
            if not self._config.source:
                raise ConfigError("no source: name a file, or pattern:512x288@25,live=1 for a synthetic picture")
            self._join()
            self._starting, self._paused, self._error, self._stats = True, False, None, None
            self._stopping = threading.Event()
            self.changed.ring()
            try:
                self._run = self._open_run(self._keys, self._config, self.pictures, self._hear, self._stopping)
            except WarpfuseError as error:
                self._error = error
                self._hear(str(error))
                raise
            finally:
                self._starting = False
                self.changed.ring()
            self._thread = threading.Thread(target=self._attend, args=(self._run,), name="wf:page", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the run, or its start, and wait until it has: files are whole. Nothing happens without one."""
        self._stopping.set()  # before the lock: who starts has it
        with self._lock:
            run = self._run
            if run is not None:
                run.stop()
            self._join()

    def restart(self, keys: dict[str, Any]) -> None:
        """Start anew with other keys. They are checked first: what cannot be used leaves the run alone."""
        with self._lock:
            self._allowed(keys)
            self.stop()
            self.start(keys)

    def wait(self) -> Stats:
        """Until the run is over; its figures. Raises what ended it early, NotRunning if there was none."""
        thread = self._thread
        if thread is not None:
            thread.join()
        if self._error is not None:
            raise self._error
        if self._stats is None:
            raise NotRunning("there was no run")
        return self._stats

    @property
    def over(self) -> bool:
        """No run, or it has ended."""
        return self._run is None

    def pause(self) -> None:
        """Read no more frames until `resume`. Raises NotRunning."""
        self._running().pause()
        self._paused = True
        self.changed.ring()

    def resume(self) -> None:
        """Read on. Raises NotRunning."""
        self._running().resume()
        self._paused = False
        self.changed.ring()

    def record(self, on: bool) -> str | None:
        """Record what is shown into a new file, whose name is returned; or end that. Raises NotRunning, BadInput."""
        run = self._running()
        if not on:
            run.record(None)
            return None
        try:
            self._record_to.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._record_to}: no recordings can be kept there ({error.strerror})") from None
        file = self._record_to / time.strftime("warpfuse-%Y%m%d-%H%M%S.mp4")
        run.record(str(file))
        return str(file)

    def stats(self) -> dict[str, Any]:
        """State, and the run's figures while there is one."""
        run = self._run
        figures = run.stats() if run is not None else {}
        error = redact(str(self._error)) if self.state == "failed" else None
        return {"state": self.state, "error": error, "viewers": self.pictures.viewers, **figures}

    def bundle(self) -> dict[str, Any]:
        """The bundle of the settings: its styles and what each is about, or that it takes text. Raises BundleError."""
        about = load_bundle(self._config.bundle).about
        return {
            "name": about.name,
            "text": about.text is not None,
            "styles": {name: style.about for name, style in about.styles.items()},
            "default": about.default_style,
            "known": sorted(find_bundles()),
        }

    def close(self) -> None:
        """Stop, for good."""
        self.stop()

    def _running(self) -> Controls:
        run = self._run
        if run is None:
            raise NotRunning("nothing runs; start it first")
        return run

    def _allowed(self, keys: dict[str, Any]) -> GraphConfig:
        config = validate(merge(self._keys, keys))
        if HIDDEN in "".join((config.source, *config.sinks)):
            raise ConfigError(f"{HIDDEN} stands for what is hidden in an address: give the whole address")
        if self._fixed_files:
            _refuse_files(self._config, config)
        return config

    def _take(self, config: GraphConfig, keys: dict[str, Any]) -> None:
        self._keys, self._config = merge(self._keys, keys), config
        self.changed.ring()

    def _hear(self, line: str) -> None:
        self.lines.append(redact(line))
        self._tell(line)

    def _attend(self, run: Controls) -> None:
        """In a thread: until the run has ended."""
        try:
            self._stats = run.wait()
        except WarpfuseError as error:
            self._error = error
            self._hear(str(error))
        finally:
            self._run = None
            self.changed.ring()

    def _join(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()


def _refuse_files(was: GraphConfig, wants: GraphConfig) -> None:
    """Raise ConfigError where a key newly names a file."""
    named = [("source", wants.source)] * (wants.source != was.source)
    named += [("sinks", sink) for sink in wants.sinks if sink not in was.sinks]
    for key, url in named:
        if url and scheme_of(url) == "file":
            raise ConfigError(f"{key}: files can be named on the command line only, the page is open to other machines")
    known = find_bundles()
    for key, old, new in (("bundle", was.bundle, wants.bundle), ("flow", was.flow, wants.flow)):
        if new != old and new not in known and new != "dis":
            names = ", ".join(sorted(known))
            raise ConfigError(f"{key}: expected one of {names}; folders can be named on the command line only")
