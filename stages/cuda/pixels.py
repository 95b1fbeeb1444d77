"""Converting pictures of bytes to planes of floats and back, on a card."""

import torch
from torch import Tensor

from warpfuse.stages.cuda.kernels import blocks, launch, plain


def planes_of(pixels: Tensor) -> Tensor:
    """As `formulas.planes_of`, to the bit."""
    h, w, _ = pixels.shape
    out = torch.empty((1, 3, h, w), device=pixels.device)
    launch("planes_of", (blocks(h * w),), pixels, pixels.contiguous(), out, h * w)
    return out


def bytes_of(rgb: Tensor) -> Tensor:
    """As `formulas.bytes_of`, to the bit."""
    _, c, h, w = rgb.shape
    out = torch.empty((h, w, c), dtype=torch.uint8, device=rgb.device)
    launch("bytes_of", (blocks(h * w),), rgb, plain(rgb), out, c, h * w)
    return out
