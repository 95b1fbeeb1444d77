"""The flow to the anchor: the frame of the shot that others are tied to, and when another one takes its place.

Flow composed frame by frame drifts. So the anchor is remembered, and every frame is compared with it.
"""

from dataclasses import dataclass
from typing import Any

from warpfuse.stages.frame import Frame, Motion, Picture
from warpfuse.stages.motion import dis_flow, network_flow
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.network_flow import FlowNetwork
from warpfuse.stages.motion.settings import FlowSettings
from warpfuse.stages.stage import Opening, Stage

_DIS = "dis"


@dataclass(frozen=True, slots=True)
class AnchorOptions:
    """What may change between frames.

    flow      settings of the flow
    coverage  0..1: below this mean trust a frame takes the anchor's place
    told      what a frame is painted by: where it changes, the next frame is the anchor
    """

    flow: FlowSettings
    coverage: float
    told: tuple[Any, ...] = ()


def settings_of(config: Any, prompts: object) -> AnchorOptions:
    """Those of a configuration."""
    told = config.prompt, config.negative, tuple(sorted(config.loras.items())), config.steps, config.strength
    return AnchorOptions(config.stages.flow, config.stages.anchor.coverage, told)


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    flow = (dis_flow if opening.config.flow == _DIS else network_flow).open(opening)
    assert isinstance(flow, Flow | FlowNetwork)
    return Anchor(flow, settings_of(opening.config, opening.prompts))


class Anchor(Stage):
    """The stage that compares each frame with the anchor.

    Picture -> Motion to the anchor. Its trust is 0 everywhere where this frame is the anchor from now on.

    The anchor is the first frame, one after a discontinuity, the first after what frames are painted by has changed,
    and one of which less is trusted than `coverage`, as the first of another shot. For the last the stage waits for the
    device. It owns its flow and closes it.
    """

    def __init__(self, flow: Flow | FlowNetwork, options: AnchorOptions) -> None:
        self._flow = flow
        self._told = options.told
        flow.compare_with_anchor(options.coverage)

    def __call__(self, frame: Picture) -> Motion:
        """Flow and trust of one frame."""
        return self._flow(frame)

    def held(self, frame: Picture) -> Frame:
        """Nothing is sampled, so nobody asks where the anchor is."""
        return Frame(frame.stamp)

    def update(self, options: AnchorOptions) -> None:
        """Take new settings, from the next frame on."""
        self._flow.update(options.flow if isinstance(self._flow, Flow) else options.flow.trust)  # type: ignore[arg-type]
        self._flow.compare_with_anchor(options.coverage)
        if options.told != self._told:
            self._told = options.told
            self._flow.forget()

    def close(self) -> None:
        """Close the flow."""
        self._flow.close()
