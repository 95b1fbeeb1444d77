"""What the graph asks of a stage, a source and a sink: frames in, frames out; never threads, sockets or clocks."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from warpfuse.engine.bundle import Bundle
from warpfuse.engine.bundle_file import NetworkName
from warpfuse.engine.contract import Engine
from warpfuse.stages.errors import SourceLost
from warpfuse.stages.frame import Frame, Hold, RawFrame, SoundPiece


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a source before its first frame is read.

    width, height  as displayed, pixels: rotation and pixel aspect applied
    fps            average rate, frames a second; sinks that need a nominal rate take it
    time_base      exact unit of the presentation times, seconds
    frames         number of frames if the container tells, for progress bars only
    path           file the sound can be copied from, if the source is one
    live           frames come at their own pace and cannot wait
    sound          of a live source: how its sound is coded, as a NUT file without any; empty if it has none
    """

    width: int
    height: int
    fps: Fraction
    time_base: Fraction
    frames: int | None = None
    path: str | None = None
    live: bool = False
    sound: bytes = b""


class Opening(Protocol):
    """What a stage is opened from. The graph gives it.

    stage    what the stage is called in the graph
    config   the configuration of the run: its keys as attributes, `config.stages.fuse`
    size     (width, height) of the frames, pixels
    device   "cpu" or "cuda:N": where tensors lie
    bundle   what the networks are taken from
    calls    network calls of a frame, K
    prompts  turns the prompt into conditioning
    """

    @property
    def stage(self) -> str: ...  # noqa: D102
    @property
    def config(self) -> Any: ...  # noqa: D102
    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def bundle(self) -> Bundle: ...  # noqa: D102
    @property
    def calls(self) -> int: ...  # noqa: D102
    @property
    def prompts(self) -> Any: ...  # noqa: D102

    def network(self, kind: NetworkName) -> Engine:
        """A network of the bundle, for frames of this size; the stage owns it and closes it. Raises BadInput."""

    def flow_network(self) -> Engine:
        """The network that `config.flow` names, likewise."""

    def map_network(self, name: str) -> Engine:
        """That of a bundle of kind map, likewise."""

    def say(self, line: str) -> None:
        """Tell who runs it, now or while frames flow."""


class Stage(Protocol):
    """Frames in, each by the name of its input; one frame out, of a `Delaying` stage later. State lives in the object.

    A stage that got a frame with `stamp.discontinuity` forgets by itself. It runs in one thread.

    A module that has `open(opening: Opening) -> Stage` is a kind of stage (`stages.stage_module`).
    """

    def __call__(self, *args: Any, **inputs: Any) -> Frame | RawFrame | None:
        """Process one frame of each input; all carry the same `stamp` but for delayed inputs. None: not ready yet."""

    def held(self, *args: Any, **inputs: Any) -> Frame | RawFrame | None:
        """The same for a frame with `stamp.hold`, which the networks are spared. What it is with every other frame,
        unless a stage says otherwise."""
        return self(*args, **inputs)

    def update(self, settings: Any) -> None:
        """Take new settings, from the next frame on."""
        return

    def close(self) -> None:
        """Give back what the stage holds."""
        return


def process(stage: Stage, inputs: Mapping[str, Any], hold: Hold) -> Frame | RawFrame | None:
    """Call a stage with what came in, by the name of the input. hold: the `stamp.hold` of the frame."""
    return stage.held(**inputs) if hold else stage(**inputs)


@runtime_checkable
class Delaying(Protocol):
    """A stage that keeps frames back: some calls give None, and what is left at the end comes out of `flush`.

    Frames leave in the order they came, each once; a call gives at most one.
    """

    def flush(self) -> Frame | RawFrame | None:
        """After the last frame: the next one kept back, None when there is none."""

    def reset(self) -> None:
        """Forget what was kept back: it belongs to a stream that broke off."""


class Source(Protocol):
    """Frames from outside, in order, numbered without gaps."""

    info: VideoInfo

    def read(self) -> RawFrame | None:
        """The next frame, or None at the end. `stamp.arrived_ns` is left 0, for clocks belong to the graph; but a
        source whose frames wait for nobody, and so have waited, tells when they came.

        Raises SourceLost when a stream that worked is gone for good."""

    @property
    def warning(self) -> str | None:
        """One line to show at the end of the run if something was lost (a truncated file), else None."""

    def close(self) -> None:
        """Close the container or device. A second call does nothing."""


@runtime_checkable
class Recovering(Protocol):
    """A source that breaks and comes back: what it tells of itself, from any thread, while another one reads."""

    @property
    def lost(self) -> SourceLost | None:
        """Why it is gone for good, once it is. `read` gives None then: what came before is whole and worth keeping."""

    def news(self) -> list[str]:
        """One line for each change of state since the last call, without secrets."""

    def report(self) -> dict[str, Any]:
        """Its figures: plain types, without secrets."""

    def interrupt(self) -> None:
        """End it: a `read` that waits returns None at once."""


@runtime_checkable
class Transparent(Protocol):
    """A source whose pictures may be transparent in parts."""

    def compose_on(self, background: tuple[int, int, int]) -> None:
        """Show those parts in this colour, RGB 0..255, from the next frame on; in black if it is not called."""


class Sink(Protocol):
    """Frames to outside.

    notes  lines to show at the end of the run: sound that had to be transcoded, say
    """

    notes: list[str]

    def write(self, frame: RawFrame) -> None:
        """Take one frame. Raises SinkLost when the frame cannot be kept (disk full)."""

    def close(self, complete: bool) -> None:
        """Finish. With complete=False the run failed: leave nothing half-written under the final name."""


@runtime_checkable
class Bridging(Protocol):
    """A sink that shows the source's own pictures while no styled ones come, at a constant rate of its own.

    raw_wanted  it does so now
    """

    raw_wanted: bool

    def write_raw(self, frame: RawFrame) -> None:
        """Take a picture of the source, of any size, at any time; another thread than that of `write`."""


@runtime_checkable
class Hearing(Protocol):
    """A sink that keeps the sound of a live source."""

    def hear(self, piece: SoundPiece) -> None:
        """Take a piece of it, its times on the clock of the frames; it comes before the pictures it belongs to."""
