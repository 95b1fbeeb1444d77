"""Occlusion by collisions of matches: places of the past with which several pixels of the present are matched.

A pixel that has just come into view was not in the past. The flow matches it with some place all the same. That place
belongs to another pixel, whose own flow is right, so it has two matches. The worse match is the pixel that has come
into view. So the forward matches alone detect occlusions that otherwise need the backward flow.
"""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import kernel, part
from warpfuse.stages.parameters import Limits

Planes = npt.NDArray[np.float32]
Gray = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int32]

_f32, _i32 = np.float32, np.int32

_TOLERANCE = 2.25
"""Factor of the check's offset in px^2: matches a pixel apart differ more than flow and inverse (bench/LOG.md)."""


def unique_match(flow_cur_to_prev: Tensor, gray: Gray, gray_prev: Gray, limits: Limits) -> tuple[Tensor, float]:
    """Find the pixels whose match in the past is not taken by a better matching pixel.

    A pixel loses its match to another pixel whose match is within one pixel of it, fits as well or better (by the mean
    difference of luma over 3 x 3 pixels), and has a different flow. Flows are different if they fail the check of
    `limits` with 2.25 times the offset (in px^2).

    flow_cur_to_prev  [1, 2, h, w] pixels, on the host
    gray, gray_prev   luma at that size or larger, uint8
    limits            its check is "squared" or "norm"

    Returns a mask [1, 1, h, w], 0 where the match is lost and 1 elsewhere; and the share of pixels that keep their
    match, fit within `limits.photometric` and were inside the last frame, in [0, 1].
    """
    flow = flow_cur_to_prev[0].numpy()
    h, w = flow.shape[1:]
    cur, prev = (np.asarray(cv2.resize(x, (w, h), interpolation=cv2.INTER_AREA), np.uint8) for x in (gray, gray_prev))
    norm = limits.check == "norm"
    offset = limits.offset * (np.sqrt(_TOLERANCE) if norm else _TOLERANCE)
    numbers = np.array([limits.slope, offset, 255 * limits.photometric], np.float32)
    out = torch.empty(1, 1, h, w)
    share = _contest(flow, cur, prev, norm, numbers, out[0, 0].numpy())
    return out, share


@kernel("float64(float32[:, :, ::1], uint8[:, ::1], uint8[:, ::1], boolean, float32[::1], float32[:, ::1])")
def _contest(flow: Planes, cur: Gray, prev: Gray, norm: bool, limits: Planes, out: Planes) -> np.float64:
    """flow [2, h, w]; cur, prev [h, w]; limits: slope, offset, levels of luma. Writes the mask, returns the share.

    The best match of every place is kept in flat arrays of (h + 2) x (w + 2) places, with a border of one place.
    """
    h, w = out.shape
    slope, offset, enough = limits[0], limits[1], limits[2]
    alike = offset * offset if norm else offset
    wide = w + 2
    places = np.empty((h, w), np.int32)
    _match(flow, wide, places)
    misfit = _misfit(flow, cur, prev)
    least = np.full((h + 2) * wide, np.inf, np.float32)
    best_x, best_y = np.zeros((h + 2) * wide, np.float32), np.zeros((h + 2) * wide, np.float32)
    for y in range(h):
        for x in range(w):
            i = np.uint64(places[y, x])
            if misfit[y, x] < least[i]:
                least[i], best_x[i], best_y[i] = misfit[y, x], flow[0, y, x], flow[1, y, x]
    least[0] = np.inf  # place 0 has the matches outside of the frame
    across = np.full((h + 2) * wide, 1e9, np.float32)
    low_x, high_x, low_y, high_y = (
        np.empty_like(least),
        np.empty_like(least),
        np.empty_like(least),
        np.empty_like(least),
    )
    _lowest(best_x, least, _f32(1), wide, across, low_x)
    _lowest(best_x, least, _f32(-1), wide, across, high_x)
    _lowest(best_y, least, _f32(1), wide, across, low_y)
    _lowest(best_y, least, _f32(-1), wide, across, high_y)
    believed = 0
    for y in range(h):
        for x in range(w):
            i = np.uint64(places[y, x])
            fx, fy, own = flow[0, y, x], flow[1, y, x], misfit[y, x]
            mine = _f32(1)
            far_x, far_y = max(-high_x[i] - fx, fx - low_x[i]), max(-high_y[i] - fy, fy - low_y[i])
            # A quick test first: for most pixels no neighbour's flow can be different enough.
            if i > 0 and far_x * far_x + far_y * far_y > alike:
                for row in range(3):
                    for at in range(3):
                        j = i + np.uint64(row * wide + at) - np.uint64(wide + 1)
                        ox, oy = best_x[j], best_y[j]
                        gap2, f2, o2 = (fx - ox) ** 2 + (fy - oy) ** 2, fx * fx + fy * fy, ox * ox + oy * oy
                        if norm:
                            apart = np.sqrt(gap2) > slope * (np.sqrt(f2) + np.sqrt(o2)) + offset
                        else:
                            apart = gap2 > slope * (f2 + o2) + offset
                        if apart and least[j] <= own:
                            mine = _f32(0)
            out[y, x] = mine
            if i > 0 and mine > _f32(0) and own <= enough:
                believed += 1
    return np.float64(believed / (h * w))


@part
def _match(flow: Planes, wide: int, places: Places) -> None:
    """The place of each pixel's match, as an index of the arrays of `_contest`; 0 outside of the frame."""
    h, w = places.shape
    width, height, step = _f32(w), _f32(h), _i32(wide)
    for y in range(h):
        for x in range(w):
            column = _f32(_i32(x)) + flow[0, y, x] + _f32(1.5)
            line = _f32(_i32(y)) + flow[1, y, x] + _f32(1.5)
            on = column >= _f32(1) and column < width + _f32(1) and line >= _f32(1) and line < height + _f32(1)
            column, line = column if on else _f32(0), line if on else _f32(0)  # NaN counts as outside
            places[y, x] = _i32(line) * step + _i32(column)


@part
def _lowest(values: Planes, least: Planes, sign: np.float32, wide: int, across: Planes, out: Planes) -> None:
    """Minimum of sign * values over the 3 x 3 places around each place, without places that have no match.

    across is working memory.
    """
    n = np.uint64(len(values))
    one, line = np.uint64(1), np.uint64(wide)
    for i in range(n):
        out[i] = sign * values[i] if least[i] < _f32(np.inf) else _f32(1e9)
    for i in range(n - np.uint64(2)):
        across[i + one] = min(min(out[i], out[i + one]), out[i + one + one])
    for i in range(n - line - line):
        out[i + line] = min(min(across[i], across[i + line]), across[i + line + line])


@part
def _misfit(flow: Planes, cur: Gray, prev: Gray) -> Planes:
    """|cur(p) - prev(p + flow(p))| in levels, averaged over 3 x 3 pixels with replicated edges."""
    h, w = cur.shape
    right, bottom = _f32(w - 1), _f32(h - 1)
    last_x, last_y = max(_i32(w - 2), _i32(0)), max(_i32(h - 2), _i32(0))
    gap = np.empty((h, w + 2), np.float32)
    for y in range(h):
        row = _f32(_i32(y))
        for x in range(w):
            px = min(max(flow[0, y, x] + _f32(_i32(x)), _f32(0)), right)
            py = min(max(flow[1, y, x] + row, _f32(0)), bottom)
            column, line = min(max(_i32(px), _i32(0)), last_x), min(max(_i32(py), _i32(0)), last_y)
            tx, ty = px - _f32(column), py - _f32(line)
            beside, under = min(column + _i32(1), _i32(w - 1)), min(line + _i32(1), _i32(h - 1))
            p0, p1 = _f32(prev[line, column]), _f32(prev[line, beside])
            q0, q1 = _f32(prev[under, column]), _f32(prev[under, beside])
            top, low = p0 + tx * (p1 - p0), q0 + tx * (q1 - q0)
            gap[y, x + 1] = abs(_f32(cur[y, x]) - (top + ty * (low - top)))
        gap[y, 0], gap[y, w + 1] = gap[y, 1], gap[y, w]
    out = np.empty((h, w), np.float32)
    column_sum = np.empty(w + 2, np.float32)
    for y in range(h):
        above, own, below = gap[max(y - 1, 0)], gap[y], gap[min(y + 1, h - 1)]
        for x in range(w + 2):
            column_sum[x] = above[x] + own[x] + below[x]
        for x in range(w):
            out[y, x] = (column_sum[x] + column_sum[x + 1] + column_sum[x + 2]) * _f32(1 / 9)
    return out
