"""Pictures as ComfyUI has them, float32 in [0, 1], and as a Pipeline takes them, uint8."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.engine.errors import BadInput

Rgb = npt.NDArray[np.uint8]

Each = Callable[[int, Rgb | None], None]
"""(frames done, the newest picture, uint8 [H, W, 3], if there is one to show). It may raise: the run is interrupted."""


def checked(images: Tensor) -> Tensor:
    """An IMAGE [B, H, W, 3]; of one with an opacity the colours alone. Raises BadInput for any other shape."""
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
    """The picture with its right and lower edge mirrored until it is (width, height); itself where it is."""
    height, width = rgb.shape[:2]
    if (width, height) == size:
        return rgb
    return np.pad(rgb, ((0, size[1] - height), (0, size[0] - width), (0, 0)), mode="symmetric")
