"""The forms of a frame: `RawFrame` on the host; `Picture`, `Latent`, `Motion` and others on a device."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from warpfuse.stages.interim import Interim

if TYPE_CHECKING:  # a process that only captures or shows need not load torch
    from torch import Tensor

    from warpfuse.engine.device import Event

Hold = Literal["", "warp", "repeat"]
"""What is shown in the place of a predicted frame: nothing else, the last picture warped onto it, or as it was."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every form of one frame carries unchanged from the source to the sinks.

    seq            number of the frame at its source: 0, 1, 2, ... without gaps
    pts_ns         presentation time in nanoseconds from the start of the stream
    arrived_ns     monotonic clock when the source had it, for latencies; 0: as soon as it is read
    discontinuity  the frame does not follow the one before it: a restart or a seek; stateful stages forget
    stale          the source gives nothing new: this is its last picture once more
    settings       version of the settings this frame is to be processed with
    hold           the networks are spared this frame, and what is shown instead
    interim        what holds in the place of some settings, in the middle of a crossfade; none: all hold
    """

    seq: int
    pts_ns: int
    arrived_ns: int = 0
    discontinuity: bool = False
    stale: bool = False
    settings: int = 0
    hold: Hold = ""
    interim: Interim | None = None


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A picture on the host: uint8 RGB [h, w, 3], C-contiguous. Read-only by agreement: several readers share it.

    sound  of a live source, as it leaves it: pieces of NUT that came with the picture, and for each the nanoseconds
           that put its times onto the clock of `pts_ns`
    """

    stamp: Stamp
    rgb: npt.NDArray[np.uint8]
    sound: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class SoundPiece:
    """Some packets of the sound of a live source, past the networks.

    stamp  seq: the number of the piece at its source; pts_ns: what puts the times in it onto the clock of the frames
    nut    uint8 [bytes]: a small file of the container NUT
    """

    stamp: Stamp
    nut: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame on one device. By itself: a frame of which there is nothing, as it is held or has no past.

    Tensors are float32 [1, c, h, w], unless the producer says otherwise. They are read-only by agreement: a link hands
    the same tensors to every reader.

    ready  on a card: the event behind the work that writes the tensors; a reader's stream waits for it
    """

    stamp: Stamp
    ready: "Event | None" = field(default=None, kw_only=True)

    @property
    def tensors(self) -> "dict[str, Tensor]":
        """Those that are there, by the names of their fields."""
        return {name: tensor for name in TENSORS[type(self)] if (tensor := getattr(self, name)) is not None}

    @classmethod
    def of(cls, stamp: Stamp, tensors: "Mapping[str, Tensor]", ready: "Event | None" = None) -> "Frame":
        """The frame that has these `tensors`."""
        return cls(stamp, **tensors, ready=ready)


@dataclass(frozen=True, slots=True, eq=False)
class Picture(Frame):
    """A picture, and what goes with it.

    rgb         [1, 3, h, w] in [0, 1]
    paint       [1, 3, h, w] in [0, 1], of a printed picture (`diffusion/composite.py`): what lies below its lines
    cover       [1, 1, h, w] in [0, 1], of a printed picture: how much of each pixel its lines cover
    trust       [1, 1, h, w] in [0, 1], of a warped picture: how far each pixel may be believed
    cell_trust  [1, 1, h / d, w / d] in [0, 1], of a warped picture: the same of each latent cell
    """

    rgb: "Tensor"
    paint: "Tensor | None" = None
    cover: "Tensor | None" = None
    trust: "Tensor | None" = None
    cell_trust: "Tensor | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class Latent(Frame):
    """A clean latent in the scale of the UNet: of the source, a reference, or a predicted x0.

    z      [1, c, h / d, w / d]
    trust  [1, 1, h / d, w / d] in [0, 1], of a warped one: how far each cell may be believed
    """

    z: "Tensor"
    trust: "Tensor | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class Motion(Frame):
    """From a frame to one before it.

    flow     flow_cur_to_prev [1, 2, h, w], pixels
    trust    [1, 1, h, w] in [0, 1]: how far the flow may be believed
    painted  [1, 3, h, w] in [0, 1], of a motion to the frame of a keyframe: the keyframe
    share    [1, 1, h, w] in [0, 1], likewise: how much of each of its pixels is shown where the flow is trusted
    """

    flow: "Tensor"
    trust: "Tensor"
    painted: "Tensor | None" = None
    share: "Tensor | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class Mask(Frame):
    """Which part of a picture is styled.

    weight  [1, 1, h, w] in [0, 1]: 1 where the styled picture is shown, 0 where the source is
    """

    weight: "Tensor"


@dataclass(frozen=True, slots=True, eq=False)
class Hints(Frame):
    """What the control maps of a frame give the UNet.

    by_control  name of the control -> [1, C, h / 8, w / 8] of a ControlNet, [1, F] of a T2I-Adapter
    """

    by_control: "Mapping[str, Tensor]"

    @property
    def tensors(self) -> "dict[str, Tensor]":
        """Those of each control, by its name."""
        return dict(self.by_control)

    @classmethod
    def of(cls, stamp: Stamp, tensors: "Mapping[str, Tensor]", ready: "Event | None" = None) -> "Hints":
        """The frame that has these tensors."""
        return cls(stamp, tensors, ready=ready)


TENSORS = {
    form: tuple(field.name for field in fields(form) if field.name not in ("stamp", "ready"))
    for form in (Frame, Picture, Latent, Motion, Mask)
}
"""The fields of each form of frame that are tensors. `Hints` have those of their controls."""
