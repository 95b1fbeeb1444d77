"""The functions of `formulas` for an NVIDIA card: a kernel or two each instead of a chain of torch's.

On a card, small kernels take as long to launch as to run. A formula of ten operations is ten launches; here it is one.
The kernels are CUDA C++ in the files `*.cu`, compiled by NVRTC when the first stage is opened (`kernels.py`).

`__all__` has the names of `arithmetic.Arithmetic`. Each function has the signature of its namesake in `formulas`, and
tests compare the two. Tensors lie on the card; the arithmetic is float32, whatever their type. Nothing waits for the
device. What is rare is left to `formulas`: nearest neighbours, flow resized to less, and radii above `REACH`.
"""

from warpfuse.stages.cuda.backward_warp import resize_flow, warp, warp_picture
from warpfuse.stages.cuda.composite import as_sharp_as, composed, cored, fuse_lines
from warpfuse.stages.cuda.confidence_mask import colour_histogram, confidence, grown, reduce_to_latent, trusted
from warpfuse.stages.cuda.downscale import resized, seen
from warpfuse.stages.cuda.moment_lock import fuse_at_entry, fuse_at_exit, lock_to_prediction, lock_to_source
from warpfuse.stages.cuda.pixels import bytes_of, planes_of

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
