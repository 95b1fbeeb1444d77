"""Pictures on a CPU through OpenCV, plane by plane: the same figures as torch's, in a fraction of its time.

A stage has one thread of torch's, and torch's loops over pictures do not use what OpenCV's do. On a card none of this
is called.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Plane = npt.NDArray[np.float32]

_CHANNELS = 3  # a picture; so the two of a pair are sampled alike, to the bit


def each_plane(x: Tensor, filtered: Callable[[Plane], Any]) -> Tensor:
    """[b, c, h, w] on the CPU, each plane as float32 through `filtered`, which may change its size. The type is x's."""
    planes = _float32(x)
    out = np.stack([[filtered(plane) for plane in picture] for picture in planes])
    return torch.from_numpy(out).to(x.dtype)


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[b, c, h, w] -> [b, c, *size], bilinear between pixel centres, no antialiasing; `interpolate` to 1e-6."""
    return each_plane(x, lambda plane: cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))


def box_mean(x: Tensor, radius: int) -> Tensor:
    """[b, c, h, w] -> the same size: mean over the square of side 2 radius + 1 around each pixel; the edge goes on."""
    side = (2 * radius + 1, 2 * radius + 1)
    return each_plane(x, lambda plane: cv2.blur(plane, side, borderType=cv2.BORDER_REPLICATE))


def cell_mean(x: Tensor, factor: int) -> Tensor:
    """[b, c, h, w] -> [b, c, h / factor, w / factor]: mean over each cell; h and w are multiples of factor."""
    size = (x.shape[-1] // factor, x.shape[-2] // factor)
    return each_plane(x, lambda plane: cv2.resize(plane, size, interpolation=cv2.INTER_AREA))


def sample(x: Tensor, columns: Plane, rows: Plane, kernel: int) -> Tensor:
    """x [b, c, h, w] read at (columns, rows), each [b or 1, h', w'] pixels; kernel: of OpenCV. The edge goes on.

    Up to three channels are sampled at once: where to read from is worked out once for all of them.
    """
    source = _float32(x)
    out = np.empty((*source.shape[:2], *columns.shape[-2:]), np.float32)
    for i, picture in enumerate(source):
        at = columns[min(i, len(columns) - 1)], rows[min(i, len(rows) - 1)]
        for start in range(0, len(picture), _CHANNELS):
            part = picture[start : start + _CHANNELS]
            pulled = cv2.remap(cv2.merge(list(part)), *at, kernel, borderMode=cv2.BORDER_REPLICATE)
            for j, plane in enumerate(cv2.split(pulled), start):
                out[i, j] = plane
    return torch.from_numpy(out).to(x.dtype)


def to_planes(rgb: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 [h, w, 3] -> float32 [1, 3, h, w] in [0, 1]."""
    out = np.empty((1, 3, *rgb.shape[:2]), np.float32)
    for i, plane in enumerate(cv2.split(rgb)):
        np.multiply(plane, np.float32(1 / 255), out=out[0, i], dtype=np.float32, casting="unsafe")
    return torch.from_numpy(out)


def to_bytes(rgb: Tensor) -> npt.NDArray[np.uint8]:
    """float32 [1, 3, h, w] in [0, 1] -> uint8 [h, w, 3], rounded to the nearest."""
    planes = [cv2.convertScaleAbs(plane, alpha=255) for plane in _float32(rgb.clamp(0, 1))[0]]
    return np.asarray(cv2.merge(planes), np.uint8)


def _float32(x: Tensor) -> Plane:
    return x.detach().to(torch.float32).contiguous().numpy()
