"""The flow to the anchor, a frame of the shot that later frames take something from; and the choice of the anchor.

Flow composed frame by frame drifts. So the anchor is kept, and the flow to it is computed for every frame.

A keyframe (`keyframe.py`) makes its frame the anchor. That frame stays the anchor even if little of it is in view, and
applies again where it comes back into view. A cut or a discontinuity discards the keyframe; then the anchor is chosen
among the frames again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from warpfuse.stages.borrowed import owned
from warpfuse.stages.frame import Frame, Motion, Picture
from warpfuse.stages.geometry.framing import Framing
from warpfuse.stages.motion import dis_flow, network_flow
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.keyframe import Keyframe, KeyframeSearch, read_keyframe
from warpfuse.stages.motion.keyframe_file import versions_of
from warpfuse.stages.motion.network_flow import FlowNetwork
from warpfuse.stages.motion.settings import AnchorSettings, FlowSettings
from warpfuse.stages.stage import Opening, Stage

_DIS = "dis"


@dataclass(frozen=True, slots=True)
class AnchorOptions:
    """Settings that may change between frames.

    flow      settings of the flow
    anchor    settings of the anchor, and of a keyframe
    taken     whether later frames take something from the anchor; else flow is computed to keyframes only
    told      prompt and other keys that define the style; when they change, the next frame becomes the anchor, unless
              the anchor is a keyframe's frame
    """

    flow: FlowSettings
    anchor: AnchorSettings = field(default_factory=AnchorSettings)
    taken: bool = True
    told: tuple[Any, ...] = ()


def settings_of(config: Any, prompts: object) -> AnchorOptions:
    """The stage's options in a configuration."""
    by_name = tuple(sorted(config.loras.items())), tuple(sorted(config.images.items(), key=lambda item: item[0]))
    told = config.prompt, config.negative, *by_name, config.steps, config.strength
    return AnchorOptions(config.stages.flow, config.stages.anchor, config.stages.fuse.asks_anchor, told)


def open(opening: Opening) -> Stage:
    """Open the stage. Raises BadInput."""
    flow = (dis_flow if opening.config.flow == _DIS else network_flow).open(opening)
    assert isinstance(flow, Flow | FlowNetwork)
    options = settings_of(opening.config, opening.prompts)
    return Anchor(flow, options, opening.framing, opening.device, opening.say)


class Anchor(Stage):
    """The stage that compares each frame with the anchor. It owns its flow and closes it.

    inputs  frame   of the source
            motion  to the frame before, which shows cuts to a keyframe. Only where the graph feeds it
    gives   motion to the anchor. Its trust is 0 everywhere if this frame becomes the anchor; if it is the frame of a
            keyframe, the trust is 1 and the motion holds the keyframe. An empty frame if nothing uses the anchor

    A frame becomes the anchor if it is the first frame, follows a discontinuity, is the first with another style
    (`AnchorOptions.told`), or has a mean trust below `coverage`, as the first frame of another shot has. It also
    becomes the anchor if it is the frame of a keyframe. If that frame is given as a picture, each frame is its own
    anchor until enough of the picture is seen. For a keyframe the stage waits for the device.

    framing  how the pictures of a keyframe are fitted into the frame; needed for a keyframe only
    say      called with a line that names the frame of a keyframe
    """

    def __init__(
        self,
        flow: Flow | FlowNetwork,
        options: AnchorOptions,
        framing: Framing | None = None,
        device: str = "cpu",
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._flow = flow
        self._framing, self._device, self._say = framing, device, say
        self._options = options
        self._given: object = None
        self._keyframe: Keyframe | None = None
        self._search: KeyframeSearch | None = None
        self._under: Tensor | None = None
        self._painted: Tensor | None = None
        self._take(options.anchor)
        self._aim()

    def __call__(self, frame: Picture, motion: Frame | None = None) -> Frame:
        """Flow and trust of one frame."""
        keyframe = self._keyframe
        if keyframe is not None and self._painted is not None and self._begins_shot(frame, motion):
            self._drop()
            self._say(f"keyframe {keyframe.name}: a cut forgets it")
        elif keyframe is not None and (found := self._to_keyframe(frame, keyframe)) is not None:
            return found
        return self._flow(frame) if self._options.taken else Frame(frame.stamp)

    def held(self, frame: Picture, motion: Frame | None = None) -> Frame:
        """A frame without motion: no network samples a held frame, so nothing uses the anchor."""
        return Frame(frame.stamp)

    def update(self, options: AnchorOptions) -> None:
        """Take new settings, from the next frame on. Raises KeyframeError."""
        self._flow.update(options.flow if isinstance(self._flow, Flow) else options.flow.trust)  # type: ignore[arg-type]
        before, self._options = self._options, options
        shown_before = self._under is not None and before.anchor.weight > 0
        self._take(options.anchor)
        if shown_before != self._shown or (options.told, options.taken) != (before.told, before.taken):
            self._flow.forget()
        self._aim()

    def close(self) -> None:
        """Close the flow."""
        self._drop()
        self._flow.close()

    def _take(self, settings: AnchorSettings) -> None:
        """A keyframe is read where it is another than before."""
        given = (settings.picture, settings.frame, settings.at, versions_of(settings))
        if given != self._given:
            self._drop()
            self._given = given
            if settings.picture:
                assert self._framing is not None, "a keyframe is fitted into the frame"
                self._keyframe = keyframe = read_keyframe(settings, self._framing, self._device)
                if keyframe.frame is None:
                    self._search = KeyframeSearch(keyframe, settings.at, self._device, self._say)
                self._under = keyframe.frame

    def _to_keyframe(self, frame: Picture, keyframe: Keyframe) -> Frame | None:
        """Motion to the frame of the keyframe; None where another frame is the anchor."""
        if self._search is not None and self._search.is_it(frame):
            self._under, self._painted = owned(frame.rgb), _over(frame.rgb, keyframe)
            self._aim()
            return self._keyed(_standing(frame), keyframe) if self._shown else None
        if not self._shown:
            return None
        motion = self._flow(frame)
        if self._painted is None and not self._is_seen(motion, keyframe):
            self._aim()  # a discontinuity forgets it
            return Motion(frame.stamp, motion.flow, torch.zeros_like(motion.trust))
        return self._keyed(motion, keyframe)

    def _begins_shot(self, frame: Picture, motion: Frame | None) -> bool:
        """As attention has it: by how much is trusted of the frame before, not of the keyframe, which may be hidden."""
        if frame.stamp.discontinuity or not isinstance(motion, Motion):
            return frame.stamp.discontinuity
        seen = float(motion.trust.mean())
        return seen == 0 or seen < self._options.anchor.coverage

    def _is_seen(self, motion: Motion, keyframe: Keyframe) -> bool:
        """Whether enough is seen of the frame that was given with a keyframe."""
        seen = float(motion.trust.mean())
        if keyframe.frame is None or seen == 0 or seen < self._options.anchor.coverage:
            return False
        self._painted = _over(keyframe.frame, keyframe)
        self._say(f"keyframe {keyframe.name}: {seen:.0%} of its frame is seen in frame {motion.stamp.seq}")
        return True

    def _keyed(self, motion: Motion, keyframe: Keyframe) -> Motion:
        share = torch.full_like(motion.trust, self._options.anchor.weight)
        if keyframe.cover is not None:
            share = share * keyframe.cover
        return Motion(motion.stamp, motion.flow, motion.trust, self._painted, share)

    @property
    def _shown(self) -> bool:
        """Whether the flow is that to the frame of the keyframe; without weight it is looked for, and no more."""
        return self._under is not None and self._options.anchor.weight > 0

    def _aim(self) -> None:
        """The frame of the keyframe is the anchor, as long as it is one."""
        if self._under is not None and self._shown:
            self._flow.begin(self._under)
        self._flow.compare_with_anchor(_ALWAYS if self._shown else self._options.anchor.coverage)

    def _drop(self) -> None:
        """No keyframe any more: the next frame is the anchor."""
        if self._search is not None:
            self._search.end()
        if self._shown:
            self._flow.forget()
        self._keyframe = self._search = self._under = self._painted = None
        self._aim()


_ALWAYS = -1.0
"""The coverage with which the anchor stays."""


def _over(under: Tensor, keyframe: Keyframe) -> Tensor:
    """The keyframe, and what it was painted over where it is transparent."""
    return keyframe.rgb if keyframe.cover is None else torch.lerp(under, keyframe.rgb, keyframe.cover)


def _standing(frame: Picture) -> Motion:
    """To the frame itself."""
    h, w = frame.rgb.shape[-2:]
    return Motion(frame.stamp, frame.rgb.new_zeros(1, 2, h, w), frame.rgb.new_ones(1, 1, h, w))
