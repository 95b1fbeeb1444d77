"""Mode sharp of `warp` on a CPU: a picture of bytes, in bands of rows, in memory that is kept.

What a pull costs there is the memory it goes through: of floats a picture is megabytes, which no cache holds, and what
a step makes is fresh memory that the system has to clear first. Bytes are exact to half a level of what is shown.
"""

import threading

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Planes = npt.NDArray[np.float32]

_SIDE_BY_SIDE = 4  # channels that OpenCV's bilinear has vectors for
_BAND = 1 << 17  # pixels of a band, about

_own = threading.local()


def pull_picture(rgb: Tensor, flow_cur_to_prev: Tensor, given_back: float) -> Tensor:
    """Picture rgb [1, 3, h, w] in [0, 1] as `warp.warp` pulls it in mode sharp, to half a 255th, held in [0, 1]."""
    planes, flow = (x[0].to(torch.float32).contiguous().numpy() for x in (rgb, flow_cur_to_prev))
    size = planes.shape[1], planes.shape[2]
    bands: _Bands | None = getattr(_own, "bands", None)
    if bands is None or bands.size != size:
        bands = _own.bands = _Bands(size)
    out = torch.empty(1, *planes.shape)
    bands.pull(planes, flow, given_back, out[0])
    return out


class _Bands:
    """Memory of one thread for pictures of one size (h, w)."""

    def __init__(self, size: tuple[int, int]) -> None:
        h, w = self.size = size
        self._rows = min(h, max(8, _BAND // w))
        read = self._rows + 2
        self._bytes = np.empty((_SIDE_BY_SIDE, h, w), np.uint8)
        self._merged = np.empty((h, w, _SIDE_BY_SIDE), np.uint8)
        self._counted = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
        self._places = np.empty((2, read, w), np.float32)
        self._pulled = np.empty((read, w, _SIDE_BY_SIDE), np.uint8)
        self._split = np.empty((_SIDE_BY_SIDE, read, w), np.uint8)
        self._band = torch.empty(3, read, w)
        self._scratch = torch.empty(7, self._rows, max(0, w - 2))

    def pull(self, planes: Planes, flow: Planes, given_back: float, out: Tensor) -> None:
        """Into `out` [3, h, w]. A band is read with a row more either side: second differences need it."""
        h, w = self.size
        for plane, shades in zip(planes, self._bytes, strict=False):
            cv2.convertScaleAbs(plane, shades, alpha=255)
        cv2.merge(list(self._bytes), self._merged)
        for top in range(0, h, self._rows):
            bottom = min(h, top + self._rows)
            above, below = max(0, top - 1), min(h, bottom + 1)
            band = self._read(flow, above, below)
            shown = out[:, top:bottom]
            _copy_rim(band[:, top - above : bottom - above], shown)
            if w > 2 and below - above > 2:
                inner = slice(above + 1, below - 1), slice(1, w - 1)
                motion = torch.from_numpy(flow[(slice(None), *inner)])
                sharpen(band, motion, given_back, out[(slice(None), *inner)], self._scratch[:, : below - above - 2])
            shown.clamp_(0, 1)

    def _read(self, flow: Planes, above: int, below: int) -> Tensor:
        """Rows of the picture, read bilinearly, [3, below - above, w] in [0, 1]."""
        columns, rows = self._counted
        x, y = self._places[:, : below - above]
        np.add(flow[0, above:below], columns, out=x)
        np.add(flow[1, above:below], rows[above:below], out=y)
        pulled, split, band = self._pulled[: below - above], self._split[:, : below - above], self._band
        cv2.remap(self._merged, x, y, cv2.INTER_LINEAR, pulled, cv2.BORDER_REPLICATE)
        cv2.split(pulled, list(split))
        return band[:, : below - above].copy_(torch.from_numpy(split[:3])).mul_(1 / 255)


def sharpen(pulled: Tensor, flow: Tensor, given_back: float, out: Tensor, scratch: Tensor) -> None:
    """The inner [c, h - 2, w - 2] of `pulled` [c, h, w] with what was blurred given back, into `out`.

        out = L + g_x d2L/dx2 + g_y d2L/dy2,      g = -given_back t (1 - t),      t the fraction of the flow

    A cubic through four points is the line between the two inner ones less t (1 - t) / 2 of the second difference. That
    is taken here where the picture has come to, not where it comes from, which is the same where neighbours move
    together; where they do not, nothing is trusted. At whole pixels it is nothing.

    flow     [2, h - 2, w - 2], of those pixels
    scratch  [4 + c, h - 2, w - 2] or more planes, written
    """
    t, u, sums = scratch[:2], scratch[2:4], scratch[4 : 4 + len(pulled)]
    torch.frac(flow, out=t).abs_()  # -0.3 is 0.7 of the pixel before: u is the same
    torch.addcmul(t, t, t, value=-1, out=u)  # t (1 - t)
    own = pulled[:, 1:-1, 1:-1]
    torch.addcmul(own, own, torch.add(u[0], u[1], out=t[0]), value=2 * given_back, out=out)
    out.addcmul_(torch.add(pulled[:, 1:-1, :-2], pulled[:, 1:-1, 2:], out=sums), u[:1], value=-given_back)
    out.addcmul_(torch.add(pulled[:, :-2, 1:-1], pulled[:, 2:, 1:-1], out=sums), u[1:], value=-given_back)


def _copy_rim(band: Tensor, out: Tensor) -> None:
    """First and last row and column: those that have no second difference."""
    for rim in (0, -1):
        out[:, rim].copy_(band[:, rim])
        out[:, :, rim].copy_(band[:, :, rim])
