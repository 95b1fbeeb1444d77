"""The formulas of stages for pictures and latents, as in the papers, in torch, for any device.

No function here depends on the device. `__all__` has the names of `arithmetic.Arithmetic`; the package `cpu` has a
second implementation of each, for a CPU. The other functions have this implementation only.
"""

from warpfuse.stages.formulas.backward_warp import resize_flow, warp, warp_picture
from warpfuse.stages.formulas.composite import as_sharp_as, composed
from warpfuse.stages.formulas.confidence_mask import confidence, grown
from warpfuse.stages.formulas.downscale import resized, seen
from warpfuse.stages.formulas.moment_lock import lock_to_prediction, lock_to_source
from warpfuse.stages.formulas.pixels import bytes_of

__all__ = [
    "as_sharp_as",
    "bytes_of",
    "composed",
    "confidence",
    "grown",
    "lock_to_prediction",
    "lock_to_source",
    "resize_flow",
    "resized",
    "seen",
    "warp",
    "warp_picture",
]
