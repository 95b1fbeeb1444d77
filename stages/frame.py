"""The two forms of a frame: `RawFrame` on the host, `Frame` on a device."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # a process that only captures or shows need not load torch
    import torch
    from torch import Tensor

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
    """

    seq: int
    pts_ns: int
    arrived_ns: int = 0
    discontinuity: bool = False
    stale: bool = False
    settings: int = 0
    hold: Hold = ""


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


@dataclass(frozen=True, slots=True)
class Frame:
    """Named tensors of one frame on one device, each [1, c, h, w] float32 unless its producer says otherwise.

    Read-only by agreement: a link hands the same tensors to every reader.

    ready  on a card: the event behind the work that writes the tensors; a reader's stream waits for it
    """

    stamp: Stamp
    tensors: "Mapping[str, Tensor]" = field(default_factory=dict)
    ready: "torch.cuda.Event | None" = None

    def __getitem__(self, name: str) -> "Tensor":
        return self.tensors[name]
