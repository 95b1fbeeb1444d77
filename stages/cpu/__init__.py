"""What `formulas` computes, on a CPU: loops that numba compiles for the processor they run on, and OpenCV's filters.

On a CPU a picture costs the memory it goes through, and a chain of library calls goes through it once a call. A loop
goes through it once. numba compiles the loops, once for a machine (`compile.py`). Each loop is worth 1 % of a frame or
more (bench/LOG.md).

Names in `__all__` are those of `arithmetic.Arithmetic`. Each has the signature of the function of that name in
`formulas`, and the tests hold it to that one. Tensors lie on the CPU; arithmetic is float32, whatever their type.
`occlusion.unique_match` has no other form: it reads what DIS compares, and DIS runs on the host.
"""

from warpfuse.stages.cpu.backward_warp import confidence, resize_flow, warp, warp_picture
from warpfuse.stages.cpu.composite import as_sharp_as, composed
from warpfuse.stages.cpu.confidence_mask import grown
from warpfuse.stages.cpu.downscale import resized, seen
from warpfuse.stages.cpu.moment_lock import lock_to_prediction, lock_to_source
from warpfuse.stages.cpu.pixels import bytes_of

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
