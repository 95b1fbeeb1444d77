"""Converting pictures of bytes to planes of floats, and back."""

import torch
from torch import Tensor


def planes_of(pixels: Tensor) -> Tensor:
    """uint8 [h, w, 3] -> float32 [1, 3, h, w] in [0, 1]."""
    rgb = torch.empty((1, 3, *pixels.shape[:2]), device=pixels.device)
    return rgb.copy_(pixels.permute(2, 0, 1)[None]).mul_(1 / 255)


def bytes_of(rgb: Tensor) -> Tensor:
    """[1, c, h, w] -> uint8 [h, w, c]: [0, 1] becomes 0 to 255, rounded to the nearest, halves to the even level.

    Values outside of [0, 1] are clamped. c: 3, or 4 with alpha.
    """
    pixels = torch.empty((*rgb.shape[-2:], rgb.shape[1]), dtype=torch.uint8, device=rgb.device)
    return pixels.copy_((rgb[0] * 255).round_().clamp_(0, 255).permute(1, 2, 0))
