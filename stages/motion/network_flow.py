"""Optical flow by the network of a flow bundle, on any device. The stage replaces `dis_flow.Flow`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine
from warpfuse.engine.errors import EngineError
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.borrowed import owned
from warpfuse.stages.frame import Frame, Motion, Picture
from warpfuse.stages.motion.dis_flow import Compared, Memory, Past
from warpfuse.stages.motion.settings import ConfidenceSettings
from warpfuse.stages.stage import Opening, Stage


def settings_of(config: Any, prompts: object) -> ConfidenceSettings:
    """The stage's settings in a configuration."""
    return config.stages.flow.trust  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """Open the stage. Raises BadInput."""
    return FlowNetwork(opening.flow_network(), opening.config.stages.flow.trust)


class FlowNetwork(Stage):
    """The stage that compares each frame with the last one, by a network.

    Picture, on the engine's device -> Motion. For the first frame and a frame with `stamp.discontinuity`, flow and
    trust are 0 everywhere. For the first frame of another shot the trust is.

    engine    network with inputs `cur` and `prev` [1, 3, H, W] and outputs `flow` and `flow_back` [1, 2, H, W], in
              pixels of H x W. Frames of another size are resized to H x W, and the flow is resized back. The stage owns
              and closes the engine. A network that takes any size is opened for one (`engine.open_engine`)
    settings  settings of the trust, in pixels of H x W

    The stage does not wait for the device. Raises EngineError for an engine with other inputs or outputs.
    """

    def __init__(self, engine: Engine, settings: ConfidenceSettings) -> None:
        self._size = _size_of(engine)
        self._engine = engine
        self._settings = settings
        self._ops = arithmetic(engine.device)
        self._memory: Memory[Past] = Memory(self._ops, _chosen)

    def __call__(self, frame: Picture) -> Motion:
        """Flow and trust of one frame."""
        return self._memory.motion(frame, self._see(frame.rgb), self._compared, self._settings)

    def held(self, frame: Picture) -> Frame:
        """No motion for a repeat, so that the frame kept remains the one whose picture is shown."""
        return Frame(frame.stamp) if frame.stamp.hold == "repeat" else self(frame)

    def compare_with_anchor(self, coverage: float) -> None:
        """Compare with the anchor instead of the last frame, from the next frame on (`Memory`)."""
        self._memory.coverage = coverage

    def begin(self, rgb: Tensor) -> None:
        """The next frame is compared with this picture, [1, 3, h, w] in [0, 1]."""
        self._memory.begin(self._see(rgb))

    def forget(self) -> None:
        """Forget the frame kept."""
        self._memory.forget()

    def update(self, settings: ConfidenceSettings) -> None:
        """Take new settings, from the next frame on. The frame kept stays."""
        self._settings = settings

    def close(self) -> None:
        """Forget the frame kept, and close the engine."""
        self._memory.forget()
        self._engine.close()

    def _see(self, rgb: Tensor) -> Past:
        if tuple(rgb.shape[-2:]) != self._size:
            rgb = self._ops.resized(rgb, self._size)
        rgb = owned(rgb)  # the next frame is compared with it
        return Past(rgb, self._ops.colour_histogram(rgb))

    def _compared(self, present: Past, past: Past, size: tuple[int, int]) -> Compared:
        flows = self._engine({"cur": present.rgb, "prev": past.rgb})
        # The flow that leaves the stage is copied: the engine overwrites its memory while a reader may still use it.
        flow = flows["flow"].clone() if size == self._size else self._ops.resize_flow(flows["flow"], size)
        return Compared(flow, flows["flow"], flows["flow_back"])


def _chosen(stays: Tensor, past: Past, present: Past) -> Callable[[], Past]:
    """See `Choose`: on the device, so the host never waits."""
    pairs = (past.rgb, present.rgb), (past.colours, present.colours)
    chosen = Past(*(torch.where(stays, one, other) for one, other in pairs))
    return lambda: chosen


def _size_of(engine: Engine) -> tuple[int, int]:
    """(H, W) that the engine was built for. Raises EngineError for other inputs or outputs, or no fixed size."""
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
