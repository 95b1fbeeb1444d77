"""What is pulled along a flow on a CPU, a row at a time: the styled picture, and what trust is judged by.

A picture is read from bytes that are packed for it. They are exact to half a level of what is shown, and the three
channels of two neighbours fit one word: a pixel between four others is two reads.
"""

import threading
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import kernel, part

if TYPE_CHECKING:
    from warpfuse.stages.motion.confidence import TrustSettings

Planes = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]

_f32, _i32, _u64 = np.float32, np.int32, np.uint64

_CHECKS = ("off", "squared", "norm")  # by number, for a kernel

_own = threading.local()


def pull_picture(rgb: Tensor, flow_cur_to_prev: Tensor, given_back: float) -> Tensor:
    """Picture rgb [1, 3, h, w] in [0, 1] as `warp.warp` pulls it in mode sharp, to half a 255th, held in [0, 1].

    Both sides are two pixels or more.
    """
    planes, flow = (x[0].to(torch.float32).contiguous().numpy() for x in (rgb, flow_cur_to_prev))
    packed: Words | None = getattr(_own, "packed", None)
    if packed is None or packed.shape != planes.shape[1:]:
        packed = _own.packed = np.empty(planes.shape[1:], np.uint64)
    out = torch.empty(1, *planes.shape)
    _pull(planes, flow, _f32(given_back), packed, out[0].numpy())
    return out


@kernel("void(float32[:, :, ::1], float32[:, :, ::1], float32, uint64[:, ::1], float32[:, :, ::1])")
def _pull(planes: Planes, flow: Planes, given_back: np.float32, packed: Words, out: Planes) -> None:
    """planes, out [3, h, w]; flow [2, h, w]; packed [h, w] is memory to work in."""
    h, w = packed.shape
    _pack(planes, packed)
    words = packed.reshape(-1)
    band = np.empty((3, 3, w), np.float32)  # the row before, the row, the row after, by turns
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


def believed(
    flow_cur_to_prev: Tensor, flow_prev_to_cur: Tensor, cur: Tensor, prev: Tensor, settings: "TrustSettings"
) -> tuple[Tensor, Tensor]:
    """What is believed before distrust grows, [1, 1, h, w], and its mean [1]; formulas of `motion/confidence.py`.

    flow_cur_to_prev, flow_prev_to_cur  [1, 2, h, w] pixels, each where it lies
    cur, prev                           [1, 3, h, w] in [0, 1], the previous where it lies, read to half a 255th

    Both sides are two pixels or more.
    """
    flow, back, ours, theirs = (
        x[0].to(torch.float32).contiguous().numpy() for x in (flow_cur_to_prev, flow_prev_to_cur, cur, prev)
    )
    limit = 3 * settings.photometric  # differences are summed over the channels
    limits = np.array([settings.slope, settings.offset, limit, settings.softness * limit], np.float32)
    out = torch.empty(1, 1, *flow.shape[1:])
    packed = np.empty(flow.shape[1:], np.uint64)
    coverage = _believe(flow, back, ours, theirs, _CHECKS.index(settings.check), limits, packed, out[0, 0].numpy())
    return out, torch.tensor([coverage])


@kernel(
    "float64(float32[:, :, ::1], float32[:, :, ::1], float32[:, :, ::1], float32[:, :, ::1], int64, float32[::1],"
    " uint64[:, ::1], float32[:, ::1])"
)
def _believe(
    flow: Planes, back: Planes, cur: Planes, prev: Planes, check: int, limits: Planes, packed: Words, out: Planes
) -> np.float64:
    """limits: slope and offset of the check; the sum up to which a pixel is believed, and how much more till not."""
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
        for x in range(w if check else 0):  # the backward flow is read where it is checked
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
    """Row y of what is believed. past [3, w]: pulled; back [4, 2 w]: the four vectors each pixel lies between."""
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
    """Each pixel and the one to the right of it as bytes: 0 B G R 0 B G R, the right one in the upper half."""
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
    """Row y of the picture pulled bilinearly into out [3, w], in [0, 1]; the rest is memory to work in."""
    _, h, w = flow.shape
    flow_x, flow_y = flow[0, y], flow[1, y]
    w_i, last_x, last_y = _i32(w), _i32(w - 2), _i32(h - 2)
    right, bottom, row = _f32(w - 1), _f32(h - 1), _f32(y)
    for x in range(w):
        px = min(max(flow_x[x] + _f32(_i32(x)), _f32(0)), right)
        py = min(max(flow_y[x] + row, _f32(0)), bottom)
        column, line = min(max(_i32(px), _i32(0)), last_x), min(max(_i32(py), _i32(0)), last_y)  # NaN may be any
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
    """Between a channel of four pixels, in [0, 1]; ty is the fraction over 255."""
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
    """As `warp.sharpened`, row y but for its ends; above, own, below [3, w] are rows of what was pulled."""
    for x in range(1, own.shape[1] - 1):
        tx, ty = flow[0, y, x] - np.floor(flow[0, y, x]), flow[1, y, x] - np.floor(flow[1, y, x])
        gx, gy = given_back * (tx - tx * tx), given_back * (ty - ty * ty)
        middle = _f32(1) + _f32(2) * (gx + gy)
        for c in range(3):
            sides = gx * (own[c, x - 1] + own[c, x + 1]) + gy * (above[c, x] + below[c, x])
            out[c, y, x] = _held(middle * own[c, x] - sides)
