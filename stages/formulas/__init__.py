"""The formulas of stages for pictures and latents, as in the papers, in torch, for any device.

No function here depends on the device. `__all__` has the names of `arithmetic.Arithmetic`; the packages `cpu` and
`cuda` have further implementations of each, for a CPU and for a card. The other functions have this
implementation only.
"""

from warpfuse.stages.formulas.backward_warp import resize_flow, warp, warp_picture
from warpfuse.stages.formulas.composite import as_sharp_as, composed, cored, fuse_lines
from warpfuse.stages.formulas.confidence_mask import colour_histogram, confidence, grown, reduce_to_latent, trusted
from warpfuse.stages.formulas.downscale import resized, seen
from warpfuse.stages.formulas.fusion import fuse_at_entry, fuse_at_exit
from warpfuse.stages.formulas.moment_lock import lock_to_prediction, lock_to_source
from warpfuse.stages.formulas.pixels import bytes_of, planes_of

__all__ = [
    "as_sharp_as",
    "bytes_of",
    "colour_histogram",
    "composed",
    "confidence",
    "cored",
    "fuse_at_entry",
    "fuse_at_exit",
    "fuse_lines",
    "grown",
    "lock_to_prediction",
    "lock_to_source",
    "planes_of",
    "reduce_to_latent",
    "resize_flow",
    "resized",
    "seen",
    "trusted",
    "warp",
    "warp_picture",
]
