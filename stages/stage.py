"""The protocols of stages, sources and sinks. They take and give frames, and know no threads, sockets or clocks."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from warpfuse.engine.bundle import Bundle
from warpfuse.engine.bundle_file import NetworkName
from warpfuse.engine.contract import Engine
from warpfuse.stages.errors import SourceLost
from warpfuse.stages.frame import Frame, Hold, RawFrame, SoundPiece, Stamp
from warpfuse.stages.geometry.framing import Framing


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known about a source before its first frame is read.

    width, height  displayed size in pixels, after rotation and pixel aspect
    fps            average rate, frames a second, for sinks that need a nominal rate
    time_base      exact unit of the presentation times, seconds
    frames         number of frames according to the container, for progress bars only; None: unknown
    path           file from which sound can be copied; None: there is none
    live           frames come at their own pace and cannot wait
    sound          codec parameters of a live source's sound, as a NUT file without packets; empty without sound
    alpha          for a sink: frames have an alpha channel
    """

    width: int
    height: int
    fps: Fraction
    time_base: Fraction
    frames: int | None = None
    path: str | None = None
    live: bool = False
    sound: bytes = b""
    alpha: bool = False


class Opening(Protocol):
    """What the graph gives a stage to open itself with.

    stage    name of the stage in the graph
    config   configuration of the run: its keys as attributes, `config.stages.fuse`
    size     (width, height) of the frames, pixels
    framing  how pictures of the source become frames, and these what is shown
    device   device of the tensors, "cpu" or "cuda:N"
    bundle   bundle of the networks
    calls    K, the UNet calls for each frame
    prompts  turns prompts into conditioning
    """

    @property
    def stage(self) -> str: ...  # noqa: D102
    @property
    def config(self) -> Any: ...  # noqa: D102
    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def framing(self) -> Framing: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def bundle(self) -> Bundle: ...  # noqa: D102
    @property
    def calls(self) -> int: ...  # noqa: D102
    @property
    def prompts(self) -> Any: ...  # noqa: D102

    def network(self, kind: NetworkName) -> Engine:
        """Open a network of the bundle for frames of this size. The stage owns and closes it. Raises BadInput."""

    def flow_network(self) -> Engine:
        """Open the flow network that `config.flow` names, as `network` does."""

    def map_network(self, name: str) -> Engine:
        """Open the network of a bundle of kind map, as `network` does."""

    def say(self, line: str) -> None:
        """Tell who runs it, now or while frames flow."""


class Stage(Protocol):
    """A stage takes a frame for each of its inputs, by name, and gives one frame; a `Delaying` stage gives it later.

    A stage keeps its state itself, and forgets it at a frame with `stamp.discontinuity`. It is called by one thread.

    A module with `open(opening: Opening) -> Stage` is a kind of stage (`stages.stage_module`).
    """

    def __call__(self, *args: Any, **inputs: Any) -> Frame | RawFrame | None:
        """Process one frame of each input. All but delayed inputs have the same `stamp`. None: no output yet."""

    def held(self, *args: Any, **inputs: Any) -> Frame | RawFrame | None:
        """Process a frame with `stamp.hold`, for which no network runs. By default the same as for other frames."""
        return self(*args, **inputs)

    def update(self, settings: Any) -> None:
        """Take new settings, from the next frame on."""
        return

    def close(self) -> None:
        """Free what the stage holds."""
        return


@runtime_checkable
class Capturable(Protocol):
    """A stage whose calls can be replayed on a card: frames of one form launch the same work on other values.

    Its calls launch everything on the current stream and wait for nothing.
    """

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable | None:
        """Make ready what the host makes for the next call, and tell what decides which work that launches.

        stamp, inputs  of that call; an input from a stage that is replayed as well is not here yet, but a number

        The forms of the inputs and of the state are known besides. Numbers of the settings that are no tensors of the
        state belong to it. None: it must be called. For one frame it may be asked again.
        """

    @property
    def state(self) -> Any:
        """What the next call reads besides its inputs, as a tree (`state_tree.py`): what it remembers, and tensors that
        are made of settings. It is not changed by who asks for it."""
        return ()

    @state.setter
    def state(self, state: Any) -> None:
        return


def process(stage: Stage, inputs: Mapping[str, Any], hold: Hold) -> Frame | RawFrame | None:
    """Call a stage. inputs: frames by the name of the input; hold: the `stamp.hold` of the frame."""
    return stage.held(**inputs) if hold else stage(**inputs)


@runtime_checkable
class Delaying(Protocol):
    """A stage whose output is delayed: its first calls give None, and `flush` gives the last frames.

    Frames are given in their order, each once. A call gives at most one.
    """

    def flush(self) -> Frame | RawFrame | None:
        """The next frame still held, after the last call; None when there is none."""

    def reset(self) -> None:
        """Drop the frames still held. They belong to an epoch that was broken off."""


class Source(Protocol):
    """A source gives frames from outside, in order and numbered without gaps."""

    info: VideoInfo

    def read(self) -> RawFrame | None:
        """The next frame; None at the end.

        `stamp.arrived_ns` is 0, since clocks belong to the graph. A live source whose frames may have waited in it sets
        the time of their arrival.

        Raises SourceLost when a stream that worked is gone for good.
        """

    @property
    def warning(self) -> str | None:
        """A line for the user, shown at the end of the run if something was lost (a truncated file); else None."""

    def close(self) -> None:
        """Close the container or device. A second call does nothing."""


@runtime_checkable
class Recovering(Protocol):
    """A source that reconnects by itself after a failure. Any thread may call these methods while another one reads."""

    @property
    def lost(self) -> SourceLost | None:
        """Why it is gone for good; None while it is not. `read` then gives None, so that the run can end in order."""

    def news(self) -> list[str]:
        """A line for the user for each change of state since the last call, without secrets."""

    def report(self) -> dict[str, Any]:
        """Its figures, as plain types and without secrets."""

    def interrupt(self) -> None:
        """End the stream: a `read` that waits returns None at once."""


@runtime_checkable
class Transparent(Protocol):
    """A source whose pictures may have transparent parts."""

    def compose_on(self, background: tuple[int, int, int]) -> None:
        """Set the background of transparent parts, RGB 0..255, from the next frame on. The default is black."""


class Sink(Protocol):
    """A sink takes frames out of the graph: it shows, sends or writes them.

    notes  lines for the user, shown at the end of the run: for example that sound had to be transcoded
    """

    notes: list[str]

    def write(self, frame: RawFrame) -> None:
        """Take one frame. Raises SinkLost when the frame cannot be kept (disk full)."""

    def close(self, complete: bool) -> None:
        """Finish the output. complete=False: the run failed, and no incomplete file may get the final name."""


@runtime_checkable
class Bridging(Protocol):
    """A sink that can show the source's pictures while no styled ones come. It keeps a constant rate by itself.

    raw_wanted  it is set up to do so
    """

    raw_wanted: bool

    def write_raw(self, frame: RawFrame) -> None:
        """Take a picture of the source, of any size, at any time. Called by another thread than `write`."""


@runtime_checkable
class Hearing(Protocol):
    """A sink that takes the sound of a live source."""

    def hear(self, piece: SoundPiece) -> None:
        """Take a piece of sound, whose times are on the clock of the frames. It comes before its pictures."""
