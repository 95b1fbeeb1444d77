"""The anchor of a shot in the sampler: its x0 after every call, for later frames.

The stage that computes the flow to the anchor also decides which frame is the anchor (`motion/anchor.py`): a frame
whose trust is 0 everywhere becomes the anchor. A frame reads x0 of the anchor after the same call k. All earlier frames
have made that call by then, with a stream batch and without.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from warpfuse.stages.frame import Motion
from warpfuse.stages.state_tree import Fields


@dataclass(slots=True, eq=False)
class AnchorPast(Fields):
    """The anchor for one row.

    x0      by call: x0 of the anchor after it, with fusion, [1, c, h, w]; shared by the rows of a stream
    motion  to the anchor, with the trust of each latent cell
    known   [1, 1, 1, 1]: 0 if this frame becomes the anchor, else 1; on the device, the host does not wait for it
    shown   x0 of the anchor after its last call, warped onto this frame; None until it is needed
    """

    x0: dict[int, Tensor] = field(repr=False)
    motion: Motion
    known: Tensor
    shown: Tensor | None = None

    def leave(self, k: int, x0: Tensor) -> None:
        """Store x0 of this frame after call k if the frame is the anchor. x0 is copied."""
        before = self.x0.get(k)
        if before is None or before.shape != x0.shape:
            self.x0[k] = x0.clone()
        else:
            self.x0[k] = torch.where(self.known > 0, before, x0)


def anchor_past(x0: dict[int, Tensor], motion: Motion) -> AnchorPast:
    """The anchor for the frame of `motion`. x0: the `AnchorPast.x0` of the stream."""
    known = (motion.trust.amax() > 0).to(torch.float32).reshape(1, 1, 1, 1)
    return AnchorPast(x0, motion, known)
