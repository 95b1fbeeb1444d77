"""The functions of `formulas` for a CPU: loops compiled by numba for the processor, and OpenCV's filters.

On a CPU, the time for a picture is the time for reading and writing its memory. A chain of library calls does so once a
call, a loop once. numba compiles the loops once for a machine (`compile.py`). Each loop saves 1 % of a frame's time or
more (bench/LOG.md).

`__all__` has the names of `arithmetic.Arithmetic`. Each function has the signature of its namesake in `formulas`, and
tests compare the two; some are those of `formulas`, where a loop would gain nothing. Tensors lie on the CPU; the
arithmetic is float32, whatever their type.
`occlusion.unique_match` exists here only: it reads the pictures that DIS compares, and DIS runs on the host.
"""

from warpfuse.stages.cpu.backward_warp import confidence, resize_flow, warp, warp_picture
from warpfuse.stages.cpu.composite import as_sharp_as, composed, cored, fuse_lines
from warpfuse.stages.cpu.confidence_mask import grown, trusted
from warpfuse.stages.cpu.downscale import resized, seen
from warpfuse.stages.cpu.fusion import fuse_at_entry, fuse_at_exit
from warpfuse.stages.cpu.moment_lock import lock_to_prediction, lock_to_source
from warpfuse.stages.cpu.pixels import bytes_of
from warpfuse.stages.formulas.confidence_mask import colour_histogram, reduce_to_latent
from warpfuse.stages.formulas.pixels import planes_of

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
