"""What stages compute on pictures and latents, as the papers write it: in torch, the same on every device.

Nothing here asks for the device. Names in `__all__` are those of `arithmetic.Arithmetic`; the package `cpu` has each of
them a second time, for a CPU. The other functions have one form.
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
