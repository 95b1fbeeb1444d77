"""The anchor of a shot in the sampler: its x0 after every call, and how a later frame finds it.

Which frame is the anchor is decided where the flow to it is computed (`motion/anchor.py`): a frame that trusts nothing
of the anchor takes its place. Row k of a stream batch reads what the anchor left at the same call, and so does a frame
sampled alone: every frame before it has made that call by then.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from warpfuse.stages.frame import Motion


@dataclass(slots=True, eq=False)
class AnchorPast:
    """The anchor as one row sees it.

    x0      call -> x0 of the anchor after it, [1, c, h, w], with what was fused into it; shared by the rows of a stream
    motion  to the anchor, its trust of each latent cell
    known   [1, 1, 1, 1]: 0 where this frame takes the anchor's place, else 1; on the device, nobody waits for it
    shown   x0 of the anchor after its last call, pulled onto this frame; none as long as nobody asked
    """

    x0: dict[int, Tensor] = field(repr=False)
    motion: Motion
    known: Tensor
    shown: Tensor | None = None

    def leave(self, k: int, x0: Tensor) -> None:
        """Take x0 after call k; it is copied."""
        before = self.x0.get(k)
        if before is None or before.shape != x0.shape:
            self.x0[k] = x0.clone()
        else:
            self.x0[k] = torch.where(self.known > 0, before, x0)


def anchor_past(x0: dict[int, Tensor], motion: Motion) -> AnchorPast:
    """The anchor as the frame of `motion` sees it. x0: what earlier frames of the stream left."""
    known = (motion.trust.amax() > 0).to(torch.float32).reshape(1, 1, 1, 1)
    return AnchorPast(x0, motion, known)
