"""The classes of frames: `RawFrame` on the host; `Picture`, `Latent`, `Motion` and others on a device."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from warpfuse.stages.interim import Interim

if TYPE_CHECKING:  # processes that only capture or show do not load torch
    from torch import Tensor

    from warpfuse.engine.device import Event

Hold = Literal["", "warp", "repeat"]
"""What is shown for a frame: its prediction (""), the last picture warped onto it ("warp"), or the last picture as it
was ("repeat")."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Metadata that a frame keeps from the source to the sinks, in every class.

    seq            number of the frame at its source: 0, 1, 2, ... without gaps
    pts_ns         presentation time, ns from the start of the stream
    arrived_ns     monotonic clock when the frame arrived at the source, for latencies; 0: when it is read
    discontinuity  the frame does not follow the one before it, after a restart or a seek; stages forget their state
    stale          the source has no new picture: this is its last one again
    settings       version of the settings for this frame
    hold           "" or, for a frame that no network runs for, what is shown instead
    interim        values during a crossfade, which replace some of the settings; None: all settings apply
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
    """A picture on the host: uint8 RGB [h, w, 3], C-contiguous. Read-only by convention, since readers share it.

    With transparent parts (`VideoInfo.alpha`) it is RGBA [h, w, 4], with straight alpha.

    sound  sound of a live source that came with the picture: for each piece its offset in ns, which put its times onto
           the clock of `pts_ns`, and the piece as a NUT file
    """

    stamp: Stamp
    rgb: npt.NDArray[np.uint8]
    sound: tuple[tuple[int, bytes], ...] = ()

    def stamped(self, stamp: Stamp) -> "RawFrame":
        """The same with another stamp."""
        return RawFrame(stamp, self.rgb, self.sound)


class DecodedOnCard(Protocol):
    """A picture in memory of a card, as a `CardFrame` holds it. Its memory goes back to the decoder with the object.

    device  of the memory
    ready   event after which the picture is written
    size    (width, height)
    """

    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def ready(self) -> "Event": ...  # noqa: D102
    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102

    def planes(self) -> "Tensor":
        """float32 [1, 3, h, w] in [0, 1], made on the current stream, which has waited for `ready`."""

    def rgb(self) -> npt.NDArray[np.uint8]:
        """The picture on the host, as a `RawFrame` has it. It waits for the card."""

    def part(self, left: int, top: int, width: int, height: int) -> "DecodedOnCard":
        """A part of the picture."""


class CardFrame(RawFrame):
    """A picture that a card has decoded and still has. Whoever asks for `rgb` gets a copy on the host."""

    __slots__ = ("decoded",)
    decoded: DecodedOnCard

    def __init__(self, stamp: Stamp, decoded: DecodedOnCard) -> None:
        for name, value in {"stamp": stamp, "sound": (), "decoded": decoded}.items():
            object.__setattr__(self, name, value)

    @property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """uint8 RGB [h, w, 3], made anew at each call."""
        return self.decoded.rgb()

    def stamped(self, stamp: Stamp) -> "CardFrame":
        """See `RawFrame`."""
        return CardFrame(stamp, self.decoded)


@dataclass(frozen=True, slots=True)
class SoundPiece:
    """Some packets of a live source's sound, which bypass the networks.

    stamp  seq: number of the piece at its source; pts_ns: offset that puts its times onto the clock of the frames
    nut    uint8 [bytes]: the packets as a small NUT file
    """

    stamp: Stamp
    nut: npt.NDArray[np.uint8]

    def earlier(self, by_ns: int) -> "SoundPiece":
        """The same packets, earlier by a time."""
        return SoundPiece(replace(self.stamp, pts_ns=self.stamp.pts_ns - by_ns), self.nut)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame on one device. The base class itself is a frame without tensors: a held frame, or one without a past.

    Tensors are float32 [1, c, h, w], unless the producer says otherwise. They are read-only by convention, since a link
    passes the same tensors to every reader.

    ready  on a card, the event after which the tensors are written; a reader's CUDA stream waits for it
    """

    stamp: Stamp
    ready: "Event | None" = field(default=None, kw_only=True)

    @property
    def tensors(self) -> "dict[str, Tensor]":
        """The tensors of the frame that are not None, by field name."""
        return {name: tensor for name in TENSORS[type(self)] if (tensor := getattr(self, name)) is not None}

    @classmethod
    def of(cls, stamp: Stamp, tensors: "Mapping[str, Tensor]", ready: "Event | None" = None) -> "Frame":
        """Make a frame of its stamp and its tensors by field name."""
        return cls(stamp, **tensors, ready=ready)


@dataclass(frozen=True, slots=True, eq=False)
class Picture(Frame):
    """A picture, with its layers and masks.

    rgb         [1, 3, h, w] in [0, 1]
    paint       [1, 3, h, w] in [0, 1], of a printed picture (`diffusion/composite.py`): the picture below the lines
    cover       [1, 1, h, w] in [0, 1], of a printed picture: the share of each pixel that lines cover
    trust       [1, 1, h, w] in [0, 1], of a warped picture: confidence of each pixel
    cell_trust  [1, 1, h / d, w / d] in [0, 1], of a warped picture: confidence of each latent cell
    alpha       [1, 1, h, w] in [0, 1], of a picture that is shown with transparent parts; `rgb` is not multiplied by it
    """

    rgb: "Tensor"
    paint: "Tensor | None" = None
    cover: "Tensor | None" = None
    trust: "Tensor | None" = None
    cell_trust: "Tensor | None" = None
    alpha: "Tensor | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class Latent(Frame):
    """A clean latent in the scale of the UNet: of the source or a reference, or a predicted x0.

    z      [1, c, h / d, w / d]
    trust  [1, 1, h / d, w / d] in [0, 1], of a warped latent: confidence of each cell
    """

    z: "Tensor"
    trust: "Tensor | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class Motion(Frame):
    """The motion from a frame to an earlier one.

    flow     flow_cur_to_prev [1, 2, h, w], pixels
    trust    [1, 1, h, w] in [0, 1]: confidence of the flow
    painted  [1, 3, h, w] in [0, 1]: the keyframe, if this is the motion to the frame of a keyframe
    share    [1, 1, h, w] in [0, 1], likewise: share of each of its pixels in the picture where the flow is trusted
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
    """The inputs of the UNet that are computed from a frame's control maps.

    by_control  name of the control -> [1, C, h / 8, w / 8] of a ControlNet, [1, F] of a T2I-Adapter
    """

    by_control: "Mapping[str, Tensor]"

    @property
    def tensors(self) -> "dict[str, Tensor]":
        """The tensors by the control's name."""
        return dict(self.by_control)

    @classmethod
    def of(cls, stamp: Stamp, tensors: "Mapping[str, Tensor]", ready: "Event | None" = None) -> "Hints":
        """Make a frame of its stamp and its tensors by the control's name."""
        return cls(stamp, tensors, ready=ready)


TENSORS = {
    form: tuple(field.name for field in fields(form) if field.name not in ("stamp", "ready"))
    for form in (Frame, Picture, Latent, Motion, Mask)
}
"""The tensor fields of each class of frame. `Hints` has a tensor for each control instead."""
