"""What the page controls: one run at a time, started, changed and stopped by whoever is let in."""

import contextlib
import threading
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from warpfuse.engine.errors import WarpfuseError, one_line
from warpfuse.engine.redact import redact
from warpfuse.graph.control.run import ManyStreams, Run
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.beats import TapTempo
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.midi_map import Action, MidiTarget
from warpfuse.graph.plan.streams import Streams
from warpfuse.graph.processes.resolved_source import ResolvedSource
from warpfuse.graph.run import open_run
from warpfuse.graph.runtime.context import Say, silent
from warpfuse.graph.runtime.endpoints import find_source
from warpfuse.stages.errors import Stopped
from warpfuse.stages.interim import Interim
from warpfuse.stages.sources import connects
from warpfuse.stages.sources.schemes import scheme_of
from warpfuse.web.bell import AsyncEvent
from warpfuse.web.motion import Rgb
from warpfuse.web.pictures import Look, Pictures, png
from warpfuse.web.record_folder import RecordFolder
from warpfuse.web.settings import Held, SessionSettings, of_stream
from warpfuse.web.stream_figures import stream_figures, whole_figures
from warpfuse.web.style_pictures import StylePictures, small_jpeg
from warpfuse.web.viewing import Looking, ViewerSink

State = Literal["stopped", "starting", "running", "paused", "ended", "failed"]

_LINES = 50


class NotRunning(ConfigError):
    """The request needs a run, and none is under way."""


class PageSession:
    """The run, its settings and its pictures. Thread-safe; `start` and `stop` wait for the graph.

    held          the settings
    pictures      the pictures that viewers see
    changed       set when the settings or the state have changed
    record_to     folder of recordings, snapshots and keyframes
    fixed_files   visitors may not name files of this machine as source, sink or bundle: a visitor from another machine
                  controls the run, not the disk
    uploads       folder whose files may be named even so
    style_pictures  folder where pictures that visitors send are kept; None: a folder of the user
    """

    def __init__(
        self,
        keys: dict[str, Any],
        *,
        record_to: Path,
        fixed_files: bool = False,
        uploads: Path | None = None,
        style_pictures: Path | None = None,
        say: Say = silent,
    ) -> None:
        """Raises ConfigError for keys that cannot be used."""
        self.pictures = Pictures()
        self.changed = AsyncEvent()
        self.lines: deque[str] = deque(maxlen=_LINES)
        self._record_folder = RecordFolder(record_to)
        self._style_pictures = StylePictures(style_pictures)
        self.held = SessionSettings(
            keys, self._style_pictures, fixed_files=fixed_files, uploads=uploads, tell=self.tell
        )
        self._tempo = TapTempo()
        self._under: Rgb | None = None  # the frame of the source that somebody saved to paint over
        self._say = say
        self._heard = 0
        self._lock = threading.RLock()
        self._switching = threading.Lock()  # one restart at a time; the settings stay free meanwhile
        self._run: Run | None = None
        self._looking: Looking | None = None
        self._thread: threading.Thread | None = None
        self._starting = False
        self._stopping = threading.Event()
        self._error: WarpfuseError | None = None
        self._stats: Stats | None = None
        self._last: dict[str, Any] = {}  # figures of the run that is over

    @property
    def source(self) -> str:
        """The address of the source of the stream that is looked at, whole: not for others."""
        return self.held.now.source

    @property
    def selected(self) -> str:
        """Name of the stream that is shown and controlled; "" in a run of one stream."""
        return self.held.selected

    @property
    def streams(self) -> list[str]:
        """Names of the streams of a run of several; empty for a run of one."""
        names = list(self._run.streams) if self._run is not None else self.held.streams
        return [name for name in names if name]

    def select(self, name: str) -> None:
        """Show and control another stream from now on. Raises ConfigError for an unknown name."""
        if name not in self.streams:
            raise ConfigError(f"there is no stream {name!r}; known: {', '.join(self.streams) or 'none'}")
        with self._lock:
            self.held.selected = name
            self.pictures.start_over()
        self.changed.notify()

    def add(self, keys: dict[str, Any], name: str = "") -> str:
        """Add a stream to a run of several. Returns its name. Raises BadInput, StreamLost, NotRunning."""
        run = self._of_several()
        self.held.check_files(keys)
        name = run.add(name, keys)
        with self._lock:
            self.held.add(name, keys)
            if self.selected not in run.streams:
                self.select(name)
        self.changed.notify()
        return name

    def remove(self, name: str) -> None:
        """Remove a stream. Its files are complete when this returns. Raises ConfigError, NotRunning."""
        self._of_several().remove(name)
        with self._lock:
            self.held.remove(name)
            if self.selected == name and self.streams:
                self.select(self.streams[0])
            elif self.selected == name and self.held.is_host:
                self.held.selected = ""
                self.pictures.start_over()
        self.changed.notify()

    @property
    def state(self) -> State:
        """State of the run."""
        if self._starting:
            return "starting"
        run = self._run
        if run is not None:
            return "paused" if self._chosen(run).paused else "running"
        if self._error is not None:
            return "stopped" if isinstance(self._error, Stopped) else "failed"
        return "ended" if self._stats is not None and not self._stats.interrupted else "stopped"

    def settings(self) -> dict[str, Any]:
        """The settings without the looks, as plain types. Passwords in addresses are hidden."""
        return self.held.plain()

    def shown(self) -> dict[str, Any]:
        """The settings that made the picture on show: `settings` with the cue of that picture on top."""
        return self.held.plain(self._interim)

    @property
    def cue(self) -> tuple[int | None, tuple[str, ...]]:
        """Cue of the picture on show: its number from 0, and the keys set by hand over it; (None, ()) without a cue."""
        interim = self._interim
        return (None, ()) if interim is None else (interim.cue, interim.by_hand)

    def learn(self, looks: dict[str, dict[str, Any] | None]) -> None:
        """Add looks by name, here and in a run under way; a look of None is removed. Raises ConfigError."""
        self.change({"looks": looks})

    def change(self, keys: dict[str, Any]) -> int | None:
        """Change settings, here and in a run under way.

        keys  new values; with `over_s`, a crossfade of so many seconds

        Returns the version number that frames carry from now on, None while nothing runs. Raises BadInput, or
        NeedsRestart for keys that a running graph was built with. After an error nothing has changed.
        """
        with self._lock:
            wanted, run = self.held.wanted(keys), self._run
            version = None if run is None else self._chosen(run).change(keys).version
            self._take(wanted)
        return version

    def start(self, keys: dict[str, Any] | None = None) -> None:
        """Start a run of the settings with these keys on top.

        Raises BadInput or StreamLost if it cannot start, and then restores the settings; Stopped if `stop` was called
        meanwhile.
        """
        with self._lock:
            if self._run is not None:
                raise ConfigError("it runs already; stop it first, or restart")
            before = self.held.both
            self._take(self.held.wanted(keys or {}))
            try:
                self._begin()
            except Stopped:
                raise
            except WarpfuseError:
                self._take(before)
                raise

    def stop(self) -> None:
        """Stop the run, or a start under way. Files are complete when this returns. Without a run it does nothing."""
        self._stopping.set()  # before the lock: who starts has it
        with self._lock:
            run = self._run
            if run is not None:
                run.stop()
            self._join()

    def restart(self, keys: dict[str, Any]) -> None:
        """Stop the run and start it again with other keys.

        The run continues while the keys are checked and the new source is connected. If the new run then cannot start,
        the old one is started again. Raises as `start` does; the old settings then hold.
        """
        with self._switching, contextlib.ExitStack() as undo:
            going = self._run
            if going is None:
                self.start(keys)
                return
            self.held.wanted(keys)
            found = self._connected(keys, undo)
            with self._lock:
                if self._stopping.is_set():
                    raise Stopped("stopped while the run was being changed")
                before, wanted = self.held.both, self.held.wanted(keys)
                self._starting = True
                self.stop()
                self._take(wanted)
                try:
                    self._begin(found, undo.pop_all())
                except Stopped:
                    raise
                except WarpfuseError as error:
                    self.tell(f"{one_line(error)}; the run starts again as it was")
                    self._take(before)
                    self._begin()
                    raise

    def wait(self) -> Stats:
        """Wait for the end of the run. Returns its figures. Raises the error that ended it, NotRunning without one."""
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
        """No run is under way or being started."""
        return self._run is None and not self._starting and not self._switching.locked()

    def pause(self) -> None:
        """Pause the run: its source is not read until `resume`. Raises NotRunning."""
        self._chosen(self._running()).pause()
        self.changed.notify()

    def resume(self) -> None:
        """End the pause. Raises NotRunning."""
        self._chosen(self._running()).resume()
        self.changed.notify()

    def tap(self, now_ns: int | None = None) -> float | None:
        """Tap the tempo. From the second tap on, the run takes the tempo, with a beat at the tap.

        now_ns  time of the tap, by any clock that all taps share; None: now

        Returns beats a minute, None after the first tap. Raises as `change` does.
        """
        bpm = self._tempo.tap(time.monotonic_ns() if now_ns is None else now_ns)
        if bpm is not None:
            self.change({"bpm": bpm, "on_beat": True})
        return bpm

    def act(self, action: Action, on: bool = True) -> str | None:
        """Perform the action of a button.

        on  the button was pressed; False: it was released, which ends a pause or a recording and else does nothing

        Returns the file that is written, if any. Raises as the method of that name does.
        """
        if action == "pause":
            (self.pause if on else self.resume)()
        elif action == "record":
            return self.record(on)
        elif on and action == "snapshot":
            return self.snapshot()
        elif on and action == "tap":
            self.tap()
        elif on:
            (self.start if action == "start" else self.stop)()
        return None

    def is_on(self, action: Action) -> bool:
        """Whether the run is paused, or recording. Other actions have no duration."""
        recording = action == "record" and any(sink.recorder for sink in self._sinks())
        return recording or (action == "pause" and self.state == "paused")

    def midi_map(self) -> dict[str, MidiTarget]:
        """The MIDI map: by trigger, what a knob or pad changes."""
        return self.held.now.midi

    def snapshot(self) -> str:
        """Write the picture on show as PNG beside the recordings. Returns its path. Raises NotRunning, ConfigError."""
        picture = self.pictures.png(Look())
        if picture is None:
            raise NotRunning("no picture has been shown yet")
        file = self._record_folder.keep_snapshot(picture)
        self.tell(f"kept the picture as {file}")
        return str(file)

    def record(self, on: bool) -> str | None:
        """Begin a recording into a new file, whose path is returned, or end it. Raises NotRunning, BadInput."""
        sink = self._sink(self._running())
        if not on:
            self._end_recording(sink)
            return None
        file = self._record_folder.recording()
        with self._lock:
            self._end_recording(sink)
            sink.record(str(file))
        return str(file)

    def frame_to_paint(self) -> bytes | None:
        """PNG of the picture on show, None before the first. `take_keyframe` belongs to the frame saved last."""
        shown = self.pictures.shown
        self._under = None if shown is None else shown.source
        return self.pictures.png(Look())

    def take_keyframe(self, painted: bytes) -> int | None:
        """Take a painted picture as the keyframe of the frame saved last by `frame_to_paint`, or of the one on show.

        The picture is kept beside the recordings. Returns the version of the settings. Raises BadInput, and then keeps
        nothing.
        """
        shown = self.pictures.shown
        under = self._under if self._under is not None or shown is None else shown.source
        files = self._record_folder.keep_keyframe(painted, None if under is None else png(under))
        try:
            self.held.sent |= {*files.values()}
            return self.change({"stages": {"anchor": {"at": None, "frame": "", **files}}})
        except WarpfuseError:
            for file in files.values():
                Path(file).unlink(missing_ok=True)
            raise

    def stats(self) -> dict[str, Any]:
        """State and figures of the run; after its end, those of the last run."""
        run, looking = self._run, self._looking
        figures = self._figures_of(run, looking) if run and looking else self._last
        error = redact(str(self._error)) if self.state == "failed" else None
        streams = {"streams": self.streams, "stream": self.selected}
        told = {"viewers": self.pictures.viewers, "lines": self._heard}
        return {"state": self.state, "error": error, **told, **streams, **figures}

    def show_style(self, name: str, picture: bytes) -> None:
        """Take a picture as a style image from now on.

        picture  content of a PNG, JPEG or WebP file

        Raises BadInput for another content, and where the bundle takes no image of that name.
        """
        self.change({"images": {name: {"picture": str(self._style_pictures.keep(picture))}}})

    def style_thumb(self, name: str) -> bytes | None:
        """A small JPEG of a style image; None if it has no picture. Raises ImageError if the file is gone."""
        image = self.held.now.images.get(name)
        if image is None or not image.picture:
            return None
        return small_jpeg(image.picture, f"images.{name}.picture")

    def close(self) -> None:
        """Stop the run. The session is not used afterwards."""
        self.stop()

    def _running(self) -> Run:
        run = self._run
        if run is None:
            raise NotRunning("nothing runs; start it first")
        return run

    def _of_several(self) -> ManyStreams:
        run = self._running()
        if not isinstance(run, ManyStreams):
            raise ConfigError("this run has one stream; start one of several to add and remove them")
        return run

    def _name_in(self, run: Run) -> str:
        """Name of the selected stream in a run; of the first one if it has left."""
        streams = run.streams
        return self.selected if self.selected in streams else next(iter(streams), "")

    def _chosen(self, run: Run) -> Run:
        return run.streams.get(self._name_in(run), run)

    def _figures_of(self, run: Run, looking: Looking) -> dict[str, Any]:
        return stream_figures(self._chosen(run), looking.sinks.get(self._name_in(run)), self.held.now)

    def _sinks(self) -> list[ViewerSink]:
        looking, run = self._looking, self._run
        shown = looking.sinks.get(self._name_in(run)) if looking is not None and run is not None else None
        return [] if shown is None else [shown]

    @property
    def _interim(self) -> Interim | None:
        """The interim values in the stamp of the picture on show."""
        return next((sink.interim for sink in self._sinks()), None)

    def _sink(self, run: Run) -> ViewerSink:
        sink = self._looking.sinks.get(self._name_in(run)) if self._looking is not None else None
        if sink is None:
            raise NotRunning("no stream runs; add one first")
        return sink

    def _connected(self, keys: dict[str, Any], undo: contextlib.ExitStack) -> ResolvedSource | None:
        """Connect the source that these keys name, while the run continues. None: the new run opens it.

        A device can be opened once only, so a source that may be the device of the present run is left to the new run;
        likewise a source that another process of the new run reads. Raises BadInput, StreamLost, Stopped.
        """
        config = of_stream(self.held.wanted(keys)[1], self.selected)
        now = self.held.now.source
        own = config.workers in ("auto", "one") and not isinstance(self.held.config, Streams)
        if not own or not connects(config.source) or not _elsewhere(config.source, now):
            return None
        self.tell(f"{config.source}: connecting; the run goes on meanwhile")
        info, connected = find_source(config.source, self._stopping, config.size)
        if connected is not None:
            undo.callback(connected.close)
        return ResolvedSource(info, connected)

    def _begin(self, found: ResolvedSource | None = None, undo: contextlib.ExitStack | None = None) -> None:
        """Open and start a run of the settings in a thread.

        found  its source, if it is connected already
        undo   closed at the end of the run

        Raises as `start` does.
        """
        undo = undo or contextlib.ExitStack()
        if not self.held.now.source and not self.held.is_host:
            undo.close()
            raise ConfigError("no source: name a file, or pattern:512x288@25,live=1 for a synthetic picture")
        self._join()
        self._starting, self._error, self._stats, self._last = True, None, None, {}
        self._stopping = threading.Event()
        self.changed.notify()
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._live, args=(opened, found, undo), name="wf:page", daemon=True)
        self._thread.start()
        try:
            opened.result()
        finally:
            self._starting = False
            self.changed.notify()

    def _take(self, held: Held) -> None:
        self.held.take(held)
        self.changed.notify()

    def tell(self, line: str) -> None:
        """Add a line to the log of the page."""
        self.lines.append(redact(line))
        self._heard += 1
        self._say(line)

    def _live(self, opened: "Future[None]", found: ResolvedSource | None, undo: contextlib.ExitStack) -> None:
        """The thread of a run, from its opening to its end. Worker processes end with this thread."""
        looking = Looking(self.pictures, lambda: self.selected)
        try:
            with undo:
                self.pictures.start_over()
                viewer, stop = looking.viewer, self._stopping
                config = at_own_rate(self.held.config)
                run = open_run(config, undo, say=self.tell, stop=stop, viewer=viewer, found=found)
                run.start()
                self._run, self._looking = run, looking
                opened.set_result(None)
                try:
                    self._stats = run.wait()
                finally:
                    for sink in looking.sinks.values():
                        self._end_quietly(sink)
                    self._last = {**self._figures_of(run, looking), **whole_figures(self._chosen(run).stats())}
        except WarpfuseError as error:
            self._error = error
            self.tell(str(error))
            if not opened.done():
                opened.set_exception(error)
        except BaseException as error:
            if not opened.done():
                opened.set_exception(error)
            raise
        finally:
            self._run = self._looking = None
            self.changed.notify()

    def _end_recording(self, sink: ViewerSink) -> None:
        """End a recording. The file is complete when this returns. Raises the error that ended it early."""
        recorder, sink.recorder = sink.recorder, None
        if recorder is not None:
            recorder.close()
            if recorder.error is not None:
                raise recorder.error
            self.tell(f"recorded {recorder.frames} frames to {recorder.file}")

    def _end_quietly(self, sink: ViewerSink) -> None:
        try:
            self._end_recording(sink)
        except WarpfuseError as error:  # the run's own end is the one to tell
            self.tell(str(error))

    def _join(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()


def _elsewhere(source: str, other: str) -> bool:
    """Whether two sources certainly differ in device and server, so that both can be open at once."""
    kinds = scheme_of(source), scheme_of(other)
    return kinds[0] != kinds[1] or (kinds[0] != "camera" and urlsplit(source).netloc != urlsplit(other).netloc)


def at_own_rate(config: GraphConfig | Streams) -> GraphConfig | Streams:
    """The configuration; a file without sinks is read at its own rate, since it is only watched."""
    if isinstance(config, Streams) or config.sinks or scheme_of(config.source) != "file":
        return config
    return config.model_copy(update={"realtime": True})
