"""Filters on a CPU by OpenCV, plane by plane. The results equal torch's, in a fraction of the time.

A stage has a single torch thread, and torch's loops over pictures are vectorized less well than OpenCV's. OpenCV writes
its results directly into the output: a plane is about a megabyte, and copying it takes as long as most of these
filters. None of this is used on a card.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Plane = npt.NDArray[np.float32]

_TOGETHER = {cv2.INTER_LINEAR: 4, cv2.INTER_CUBIC: 3}
"""Number of planes that OpenCV samples together at the least cost: its bilinear sampling has vectors for four planes,
its bicubic sampling has none."""


def each_plane(x: Tensor, filtered: Callable[[Plane, Plane], object], size: tuple[int, int] | None = None) -> Tensor:
    """Filter each plane of x [b, c, h, w] as float32. The result has the type of x.

    filtered  (plane, out): filters a plane and writes it to `out`
    size      (h, w) of the result; None: that of x
    """
    source = planes(x)
    out = np.empty((*source.shape[:2], *(size or source.shape[2:])), np.float32)
    for picture, written in zip(source, out, strict=True):
        for plane, target in zip(picture, written, strict=True):
            filtered(plane, target)
    return torch.from_numpy(out).to(x.dtype)


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[b, c, h, w] -> [b, c, *size], bilinear without antialiasing. As torch's `interpolate`, to within 1e-6."""
    return _resize(x, size, cv2.INTER_LINEAR)


def resize_area(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[b, c, h, w] -> [b, c, *size]: the mean over the area of each new pixel. No side may be enlarged."""
    return _resize(x, size, cv2.INTER_AREA)


def sample(x: Tensor, columns: Plane, rows: Plane, kernel: int) -> Tensor:
    """Sample x [b, c, h, w] at (columns, rows), [b or 1, h', w'] pixels each, with replicated edges.

    kernel  OpenCV's interpolation
    """
    source = planes(x)
    out = np.empty((*source.shape[:2], *columns.shape[-2:]), np.float32)
    for i, picture in enumerate(source):
        at = columns[min(i, len(columns) - 1)], rows[min(i, len(rows) - 1)]
        sample_planes(list(picture), *at, kernel, list(out[i]))
    return torch.from_numpy(out).to(x.dtype)


def sample_planes(those: Sequence[Plane], columns: Plane, rows: Plane, kernel: int, out: Sequence[Plane]) -> None:
    """Sample planes [h, w] at (columns, rows), [h', w'] pixels each, into `out`, with replicated edges.

    Several planes are sampled together, so that the positions are computed once for all of them.
    """
    together = _TOGETHER[kernel]
    for start in range(0, len(those), together):
        part, target = those[start : start + together], list(out[start : start + together])
        if len(part) == 1:
            cv2.remap(part[0], columns, rows, kernel, target[0], cv2.BORDER_REPLICATE)
            continue
        missing = together - len(part)
        merged = cv2.merge([*part, *[part[0]] * missing])
        sampled = cv2.remap(merged, columns, rows, kernel, None, cv2.BORDER_REPLICATE)
        cv2.split(sampled, [*target, *(np.empty_like(columns) for _ in range(missing))])


def _resize(x: Tensor, size: tuple[int, int], kernel: int) -> Tensor:
    return each_plane(x, lambda plane, out: cv2.resize(plane, size[::-1], out, interpolation=kernel), size)


def planes(x: Tensor) -> Plane:
    """x as a float32 array [b, c, h, w]; without a copy if it is contiguous float32 already."""
    return x.detach().to(torch.float32).contiguous().numpy()
