"""Backward warping on a CPU, and the confidence of the warped picture.

Pictures are first packed into bytes, and then warped a row at a time. Bytes are exact to half a level of the displayed
picture. The three channels of two neighbouring pixels fit into one word, so a bilinear sample takes two reads. OpenCV
samples everything else.
"""

import threading
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages import formulas
from warpfuse.stages.cpu.compile import kernel, part
from warpfuse.stages.cpu.opencv import resize_area, resize_bilinear, sample
from warpfuse.stages.formulas.backward_warp import GIVEN_BACK, check_sizes, in_pixels_of, places, sharpened
from warpfuse.stages.parameters import Limits, Mode

Planes = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]

_f32, _i32, _u64 = np.float32, np.int32, np.uint64

_CHECKS = ("off", "squared", "norm")  # kernels get the index
_OPENCV: dict[Mode, int] = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}

_own = threading.local()


def warp(prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """As `formulas.warp`, to within 1e-4 for pictures in [0, 1]. An integer flow is an exact shift at any size."""
    check_sizes(prev, flow_cur_to_prev)
    if mode == "sharp":
        blurred = warp(prev.to(torch.float32), flow_cur_to_prev, "bilinear")
        return sharpened(blurred, flow_cur_to_prev.to(torch.float32)).to(prev.dtype)
    if mode not in _OPENCV or not remap_is_exact():
        return formulas.warp(prev, flow_cur_to_prev, mode)
    x, y = places(flow_cur_to_prev)
    return sample(prev, x.numpy(), y.numpy(), _OPENCV[mode])


def resize_flow(flow_px: Tensor, size: tuple[int, int]) -> Tensor:
    """As `formulas.resize_flow`. Smaller sizes get the mean over areas."""
    (h, w), (new_h, new_w) = flow_px.shape[-2:], size
    if (h, w) == (new_h, new_w):
        return flow_px
    if new_h >= h and new_w >= w:
        return in_pixels_of(resize_bilinear(flow_px, size), flow_px)
    if new_h <= h and new_w <= w:
        return in_pixels_of(resize_area(flow_px, size), flow_px)
    return formulas.resize_flow(flow_px, size)


def warp_picture(rgb_prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """As `formulas.warp_picture`, in the mode sharp to within half a 255th."""
    if mode != "sharp" or min(rgb_prev.shape[-2:]) < 2:
        return warp(rgb_prev, flow_cur_to_prev, mode).clamp_(0, 1)
    check_sizes(rgb_prev, flow_cur_to_prev)
    planes, flow = (x[0].to(torch.float32).contiguous().numpy() for x in (rgb_prev, flow_cur_to_prev))
    packed: Words | None = getattr(_own, "packed", None)
    if packed is None or packed.shape != planes.shape[1:]:
        packed = _own.packed = np.empty(planes.shape[1:], np.uint64)
    out = torch.empty(1, *planes.shape)
    _warp_picture(planes, flow, _f32(GIVEN_BACK), packed, out[0].numpy())
    return out


@cache
def remap_is_exact() -> bool:
    """True if this OpenCV samples at exact positions. Versions up to 4.x round them to 1/32 px, 5.0 does not."""
    ramp = np.arange(16, dtype=np.float32)[None].repeat(16, axis=0)
    x, y = np.meshgrid(np.arange(16, dtype=np.float32) + np.float32(0.01), np.arange(16, dtype=np.float32))
    out = cv2.remap(ramp, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    # On a ramp, Keys' kernel with a = -0.75 gives f + f/2 - 3/2 f^2 + f^3 at the fraction f, not f itself.
    return bool(abs(float(out[8, 8]) - 8 - 0.014851) < 1e-4)


@kernel("void(float32[:, :, ::1], float32[:, :, ::1], float32, uint64[:, ::1], float32[:, :, ::1])")
def _warp_picture(planes: Planes, flow: Planes, given_back: np.float32, packed: Words, out: Planes) -> None:
    """planes, out [3, h, w]; flow [2, h, w]; packed [h, w] is working memory."""
    h, w = packed.shape
    _pack(planes, packed)
    words = packed.reshape(-1)
    band = np.empty((3, 3, w), np.float32)  # a ring of the last three rows
    upper, lower, at = np.empty(w, np.uint64), np.empty(w, np.uint64), np.empty(w, np.int32)
    between = np.empty((2, w), np.float32)
    _read_row(words, flow, 0, at, between, upper, lower, band[0])
    for y in range(h):
        if y + 1 < h:
            _read_row(words, flow, y + 1, at, between, upper, lower, band[(y + 1) % 3])
        own = band[y % 3]
        if 0 < y < h - 1:
            _sharpen_row(band[(y + 2) % 3], own, band[(y + 1) % 3], flow, given_back, out, y)
            for c in range(3):
                for x in (0, w - 1):
                    out[c, y, x] = _held(own[c, x])
        else:
            for c in range(3):
                for x in range(w):
                    out[c, y, x] = _held(own[c, x])


def confidence(
    flow_cur_to_prev: Tensor, flow_prev_to_cur: Tensor | None, cur: Tensor, prev: Tensor, limits: Limits
) -> tuple[Tensor, Tensor]:
    """As `formulas.confidence`, for one frame, [1, ...]. The previous picture is sampled to within half a 255th."""
    if min(cur.shape[-2:]) < 2:
        return formulas.confidence(flow_cur_to_prev, flow_prev_to_cur, cur, prev, limits)
    flow, back, ours, theirs = (
        x[0].to(torch.float32).contiguous().numpy()
        for x in (flow_cur_to_prev, flow_cur_to_prev if flow_prev_to_cur is None else flow_prev_to_cur, cur, prev)
    )
    check = 0 if flow_prev_to_cur is None else _CHECKS.index(limits.check)
    most = 3 * limits.photometric  # the kernel sums the differences over the channels instead of averaging them
    numbers = np.array([limits.slope, limits.offset, most, limits.softness * most], np.float32)
    out = torch.empty(1, 1, *flow.shape[1:])
    packed = np.empty(flow.shape[1:], np.uint64)
    coverage = _confidence(flow, back, ours, theirs, check, numbers, packed, out[0, 0].numpy())
    return out, torch.tensor([coverage])


@kernel(
    "float64(float32[:, :, ::1], float32[:, :, ::1], float32[:, :, ::1], float32[:, :, ::1], int64, float32[::1],"
    " uint64[:, ::1], float32[:, ::1])"
)
def _confidence(
    flow: Planes, back: Planes, cur: Planes, prev: Planes, check: int, limits: Planes, packed: Words, out: Planes
) -> np.float64:
    """limits: slope and offset of the check; the sum up to which a pixel is trusted, and the width of its fall to 0."""
    h, w = out.shape
    _pack(prev, packed)
    words = packed.reshape(-1)
    pairs = np.empty(2 * h * w, np.float32)
    for y in range(h if check else 0):
        for x in range(w):
            pairs[2 * (y * w + x)], pairs[2 * (y * w + x) + 1] = back[0, y, x], back[1, y, x]
    vectors = pairs.view(np.uint64)
    past, between = np.empty((3, w), np.float32), np.empty((2, w), np.float32)
    upper, lower, at = np.empty(w, np.uint64), np.empty(w, np.uint64), np.empty(w, np.int32)
    corners = np.zeros((4, w), np.uint64)
    total = np.float64(0)
    for y in range(h):
        _read_row(words, flow, y, at, between, upper, lower, past)
        for x in range(w if check else 0):  # without a check the backward flow is not read
            i = _u64(at[x])
            j = i + _u64(w)
            corners[0, x], corners[1, x] = vectors[i], vectors[i + _u64(1)]
            corners[2, x], corners[3, x] = vectors[j], vectors[j + _u64(1)]
        _judge_row(flow, cur, past, corners.view(np.float32), between, check, limits, y, out)
        row = _f32(0)
        for x in range(w):
            row += out[y, x]
        total += np.float64(row)
    return np.float64(total / (h * w))


@part
def _judge_row(
    flow: Planes,
    cur: Planes,
    past: Planes,
    back: Planes,
    between: Planes,
    check: int,
    limits: Planes,
    y: int,
    out: Planes,
) -> None:
    """Compute row y of the confidence. past [3, w]: warped picture; back [4, 2 w]: backward flow at the four corners of
    each sample; between [2, w]: fractions of the sample's position."""
    h, w = out.shape
    slope, offset, limit, over = limits[0], limits[1], limits[2], limits[3]
    middle_x, middle_y = _f32(w - 1) / _f32(2), _f32(h - 1) / _f32(2)
    half_w, half_h, row = _f32(w) / _f32(2), _f32(h) / _f32(2), _f32(y)
    for x in range(w):
        gap = _f32(0)
        for c in range(3):
            gap += abs(cur[c, y, x] - past[c, x])
        if over > _f32(0):
            m = _held((limit + over - gap) / over)
        else:
            m = _f32(1) if gap <= limit else _f32(0)
        fx, fy = flow[0, y, x], flow[1, y, x]
        inside = abs(fx + _f32(np.int32(x)) - middle_x) <= half_w and abs(fy + row - middle_y) <= half_h
        tx, ty = between[0, x], between[1, x]
        bx = _along(back[0, 2 * x], back[1, 2 * x], back[2, 2 * x], back[3, 2 * x], tx, ty)
        by = _along(back[0, 2 * x + 1], back[1, 2 * x + 1], back[2, 2 * x + 1], back[3, 2 * x + 1], tx, ty)
        gap2, f2, b2 = (fx + bx) ** 2 + (fy + by) ** 2, fx * fx + fy * fy, bx * bx + by * by
        if check == 1:
            inside = inside and gap2 <= slope * (f2 + b2) + offset
        elif check == 2:
            inside = inside and np.sqrt(gap2) <= slope * (np.sqrt(f2) + np.sqrt(b2)) + offset
        out[y, x] = m if inside else _f32(0)


@part
def _along(
    p0: np.float32, p1: np.float32, q0: np.float32, q1: np.float32, tx: np.float32, ty: np.float32
) -> np.float32:
    top, bottom = p0 + tx * (p1 - p0), q0 + tx * (q1 - q0)
    return top + ty * (bottom - top)


@part
def _pack(planes: Planes, packed: Words) -> None:
    """Pack each pixel and its right neighbour into a word of bytes, 0 B G R 0 B G R; the neighbour is on top."""
    h, w = packed.shape
    row = np.empty(w + 1, np.uint64)
    for y in range(h):
        r, g, b = planes[0, y], planes[1, y], planes[2, y]
        for x in range(w):
            row[x] = _u64(_level(r[x]) | (_level(g[x]) << 8) | (_level(b[x]) << 16))
        row[w] = row[w - 1]
        for x in range(w):
            packed[y, x] = row[x] | (row[x + 1] << _u64(32))


@part
def _level(value: np.float32) -> np.int32:
    return min(max(_i32(value * _f32(255) + _f32(0.5)), _i32(0)), _i32(255))


@part
def _read_row(
    words: Words,
    flow: Planes,
    y: int,
    at: npt.NDArray[np.int32],
    between: Planes,
    upper: Words,
    lower: Words,
    out: Planes,
) -> None:
    """Warp row y of the picture bilinearly into out [3, w], in [0, 1].

    at and between are set to the index and the fractions of each sample; upper and lower are working memory.
    """
    _, h, w = flow.shape
    flow_x, flow_y = flow[0, y], flow[1, y]
    w_i, last_x, last_y = _i32(w), _i32(w - 2), _i32(h - 2)
    right, bottom, row = _f32(w - 1), _f32(h - 1), _f32(y)
    for x in range(w):
        px = min(max(flow_x[x] + _f32(_i32(x)), _f32(0)), right)
        py = min(max(flow_y[x] + row, _f32(0)), bottom)
        # Bound after the conversion as well: NaN may become any integer.
        column, line = min(max(_i32(px), _i32(0)), last_x), min(max(_i32(py), _i32(0)), last_y)
        between[0, x], between[1, x] = px - _f32(column), py - _f32(line)
        at[x] = line * w_i + column
    stride = _u64(w)
    for x in range(w):
        i = _u64(at[x])
        upper[x], lower[x] = words[i], words[i + stride]
    above, below = upper.view(np.int32), lower.view(np.int32)
    r, g, b = out[0], out[1], out[2]
    scale = _f32(1 / 255)
    for x in range(w):
        a0, a1, b0, b1 = above[2 * x], above[2 * x + 1], below[2 * x], below[2 * x + 1]
        tx, ty = between[0, x], between[1, x] * scale
        r[x] = _bilinear(a0, a1, b0, b1, _i32(0), tx, ty)
        g[x] = _bilinear(a0, a1, b0, b1, _i32(8), tx, ty)
        b[x] = _bilinear(a0, a1, b0, b1, _i32(16), tx, ty)


@part
def _bilinear(
    a0: np.int32, a1: np.int32, b0: np.int32, b1: np.int32, shift: np.int32, tx: np.float32, ty: np.float32
) -> np.float32:
    """Interpolate a channel of four packed pixels, result in [0, 1]. ty: the vertical fraction divided by 255."""
    p0, p1, q0, q1 = _shade(a0, shift), _shade(a1, shift), _shade(b0, shift), _shade(b1, shift)
    top, bottom = p0 + tx * (p1 - p0), q0 + tx * (q1 - q0)
    return top * _f32(1 / 255) + ty * (bottom - top)


@part
def _shade(pixel: np.int32, shift: np.int32) -> np.float32:
    return _f32((pixel >> shift) & _i32(255))


@part
def _held(value: np.float32) -> np.float32:
    return min(max(value, _f32(0)), _f32(1))


@part
def _sharpen_row(
    above: Planes, own: Planes, below: Planes, flow: Planes, given_back: np.float32, out: Planes, y: int
) -> None:
    """As `backward_warp.sharpened`, for row y without its ends. above, own, below [3, w]: rows of the warp's result."""
    for x in range(1, own.shape[1] - 1):
        tx, ty = flow[0, y, x] - np.floor(flow[0, y, x]), flow[1, y, x] - np.floor(flow[1, y, x])
        gx, gy = given_back * (tx - tx * tx), given_back * (ty - ty * ty)
        middle = _f32(1) + _f32(2) * (gx + gy)
        for c in range(3):
            sides = gx * (own[c, x - 1] + own[c, x + 1]) + gy * (above[c, x] + below[c, x])
            out[c, y, x] = _held(middle * own[c, x] - sides)
