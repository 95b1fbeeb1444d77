"""Converting between pictures of ComfyUI, float32 in [0, 1], and of a Pipeline, uint8."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.engine.errors import BadInput

Rgb = npt.NDArray[np.uint8]

Each = Callable[[int, Rgb | None], None]
"""Called with (frames done, the newest picture, uint8 [H, W, 3], or None). It raises to interrupt the run."""


def checked(images: Tensor) -> Tensor:
    """An IMAGE as [B, H, W, 3], without an alpha channel. Raises BadInput for other shapes."""
    if images.ndim != 4 or images.shape[0] < 1 or images.shape[-1] not in (3, 4):
        raise BadInput(f"expected pictures [frames, height, width, 3], got a tensor {list(images.shape)}")
    return images[..., :3]


def to_bytes(image: Tensor) -> Rgb:
    """[H, W, 3] float in [0, 1] -> uint8, rounded."""
    pixels = (image.detach().to("cpu", torch.float32).clamp(0, 1) * 255).round()
    return np.ascontiguousarray(pixels.to(torch.uint8).numpy())


def to_image(rgb: Rgb) -> Tensor:
    """uint8 [H, W, 3] -> float32 in [0, 1], on the host."""
    return torch.from_numpy(rgb).to(torch.float32) / 255


def padded(rgb: Rgb, size: tuple[int, int]) -> Rgb:
    """The picture padded at the right and lower edge by mirroring to `size`, (width, height)."""
    height, width = rgb.shape[:2]
    if (width, height) == size:
        return rgb
    return np.pad(rgb, ((0, size[1] - height), (0, size[0] - width), (0, 0)), mode="symmetric")
