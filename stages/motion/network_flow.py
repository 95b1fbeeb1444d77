"""Optical flow by a network of a flow bundle: the stage that stands where `dis_flow.Flow` does, on any device."""

from typing import Any

from torch import Tensor

from warpfuse.engine.contract import Engine
from warpfuse.engine.errors import EngineError
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.borrowed import owned
from warpfuse.stages.formulas.confidence_mask import colour_histogram
from warpfuse.stages.frame import Frame, Motion, Picture
from warpfuse.stages.motion.dis_flow import Compared, Memory, Past
from warpfuse.stages.motion.settings import ConfidenceSettings
from warpfuse.stages.stage import Opening, Stage


def settings_of(config: Any, prompts: object) -> ConfidenceSettings:
    """Those of a configuration."""
    return config.stages.flow.trust  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return FlowNetwork(opening.flow_network(), opening.config.stages.flow.trust)


class FlowNetwork(Stage):
    """The stage that compares each frame with the one before it, by a network.

    Picture, on the engine's device -> Motion. The first frame, one with `stamp.discontinuity` and the first of another
    shot have no past: their trust is 0 everywhere (and but for the last their flow).

    engine    takes `cur` and `prev` [1, 3, H, W], gives `flow` and `flow_back` [1, 2, H, W] in its own pixels; owned
              and closed. Frames of another size are brought to H x W and the flow back to theirs
              (one that takes any size is opened for one: see `engine.open_engine`)
    settings  how trust is made, in pixels of H x W

    Nothing waits for the device. Raises EngineError for an engine of other inputs or outputs.
    """

    def __init__(self, engine: Engine, settings: ConfidenceSettings) -> None:
        self._size = _size_of(engine)
        self._engine = engine
        self._settings = settings
        self._ops = arithmetic(engine.device)
        self._memory: Memory[Past] = Memory(self._ops)

    def __call__(self, frame: Picture) -> Motion:
        """Flow and trust of one frame."""
        return self._memory.motion(frame, self._see(frame.rgb), self._compared, self._settings)

    def held(self, frame: Picture) -> Frame:
        """Of a repeat nothing: what is remembered stays that of the picture shown."""
        return Frame(frame.stamp) if frame.stamp.hold == "repeat" else self(frame)

    def compare_with_anchor(self, coverage: float) -> None:
        """From the next frame on: not with the frame before, but with the anchor (`Memory`)."""
        self._memory.coverage = coverage

    def begin(self, rgb: Tensor) -> None:
        """The next frame is compared with this picture, [1, 3, h, w] in [0, 1]."""
        self._memory.begin(self._see(rgb))

    def forget(self) -> None:
        """The next frame has no past."""
        self._memory.forget()

    def update(self, settings: ConfidenceSettings) -> None:
        """Take new settings, from the next frame on. What is remembered stays."""
        self._settings = settings

    def close(self) -> None:
        """Forget the frame before and close the engine."""
        self._memory.forget()
        self._engine.close()

    def _see(self, rgb: Tensor) -> Past:
        if tuple(rgb.shape[-2:]) != self._size:
            rgb = self._ops.resized(rgb, self._size)
        rgb = owned(rgb)  # the next frame is compared with it
        return Past(rgb, colour_histogram(rgb))

    def _compared(self, present: Past, past: Past, size: tuple[int, int]) -> Compared:
        flows = self._engine({"cur": present.rgb, "prev": past.rgb})
        # The one that goes on is copied: the engine's memory is written again while a reader may still hold it.
        flow = flows["flow"].clone() if size == self._size else self._ops.resize_flow(flows["flow"], size)
        return Compared(flow, flows["flow"], flows["flow_back"])


def _size_of(engine: Engine) -> tuple[int, int]:
    """(H, W) the engine was built for."""
    given = {spec.name: spec.shape for spec in engine.inputs}
    outputs = {spec.name for spec in engine.outputs}
    if given.keys() != {"cur", "prev"} or outputs != {"flow", "flow_back"}:
        raise EngineError(
            f"flow network: expected inputs cur, prev and outputs flow, flow_back; "
            f"got {', '.join(sorted(given))} and {', '.join(sorted(outputs))}. Give a bundle of kind 'flow'"
        )
    h, w = given["cur"][-2:]
    if h is None or w is None or given["prev"] != given["cur"]:
        raise EngineError(
            f"flow network: expected cur and prev of one fixed size, got {given['cur']} and {given['prev']}. "
            f"Open it for a size, or export it again with --size WxH"
        )
    return h, w
