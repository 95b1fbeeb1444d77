"""Pictures on a CPU through OpenCV, plane by plane: the same figures as torch's, in a fraction of its time.

A stage has one thread of torch's, and torch's loops over pictures do not use what OpenCV's do. On a card none of this
is called. What OpenCV gives back is written where it is to lie: a plane of a picture is a megabyte, and a copy of it
costs as much as most of these filters.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Plane = npt.NDArray[np.float32]

_TOGETHER = {cv2.INTER_LINEAR: 4, cv2.INTER_CUBIC: 3}
"""Planes that OpenCV samples at once at the least cost each: its bilinear has vectors for four, its bicubic none."""


def each_plane(x: Tensor, filtered: Callable[[Plane, Plane], object], size: tuple[int, int] | None = None) -> Tensor:
    """[b, c, h, w] on the CPU, each plane as float32 through `filtered`, which writes its second argument.

    size  (h, w) of the planes that leave, if they are of another. The type is x's
    """
    source = planes(x)
    out = np.empty((*source.shape[:2], *(size or source.shape[2:])), np.float32)
    for picture, written in zip(source, out, strict=True):
        for plane, target in zip(picture, written, strict=True):
            filtered(plane, target)
    return torch.from_numpy(out).to(x.dtype)


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[b, c, h, w] -> [b, c, *size], bilinear between pixel centres, no antialiasing; `interpolate` to 1e-6."""
    return _resize(x, size, cv2.INTER_LINEAR)


def resize_area(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[b, c, h, w] -> [b, c, *size], no larger either way: the mean over the area that becomes a pixel."""
    return _resize(x, size, cv2.INTER_AREA)


def sample(x: Tensor, columns: Plane, rows: Plane, kernel: int) -> Tensor:
    """x [b, c, h, w] read at (columns, rows), each [b or 1, h', w'] pixels; kernel: of OpenCV. The edge goes on."""
    source = planes(x)
    out = np.empty((*source.shape[:2], *columns.shape[-2:]), np.float32)
    for i, picture in enumerate(source):
        at = columns[min(i, len(columns) - 1)], rows[min(i, len(rows) - 1)]
        sample_planes(list(picture), *at, kernel, list(out[i]))
    return torch.from_numpy(out).to(x.dtype)


def sample_planes(those: Sequence[Plane], columns: Plane, rows: Plane, kernel: int, out: Sequence[Plane]) -> None:
    """Planes [h, w] read at (columns, rows), [h', w'] pixels each, into `out`. The edge goes on.

    Several are sampled at once: where to read from is worked out once for all of them.
    """
    together = _TOGETHER[kernel]
    for start in range(0, len(those), together):
        part, target = those[start : start + together], list(out[start : start + together])
        if len(part) == 1:
            cv2.remap(part[0], columns, rows, kernel, target[0], cv2.BORDER_REPLICATE)
            continue
        missing = together - len(part)
        merged = cv2.merge([*part, *[part[0]] * missing])
        pulled = cv2.remap(merged, columns, rows, kernel, None, cv2.BORDER_REPLICATE)
        cv2.split(pulled, [*target, *(np.empty_like(columns) for _ in range(missing))])


def _resize(x: Tensor, size: tuple[int, int], kernel: int) -> Tensor:
    return each_plane(x, lambda plane, out: cv2.resize(plane, size[::-1], out, interpolation=kernel), size)


def planes(x: Tensor) -> Plane:
    """float32 [b, c, h, w], where it lies if it is that already."""
    return x.detach().to(torch.float32).contiguous().numpy()
