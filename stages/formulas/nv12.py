"""NV12, the format of pictures that a card has decoded, to RGB: as the host's swscale does it, within one level.

Chroma has half the size. The cubic kernel of swscale (a = -0.6) enlarges it,
first across, then down. Between the two swscale keeps 15 bits, so values end at 255.99. Where a colour is far out of
range, as no camera gives it, swscale wraps around; here it is clipped. Below 16 pixels a side swscale does otherwise.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

_LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Weights of red and blue in luma, by the matrix's number in `sources/display.py`."""

_A = -0.6
_MOST = 32767 / 128


def _cubic(t: float) -> float:
    if t < 1:
        return (_A + 2) * t**3 - (_A + 3) * t**2 + 1
    return _A * (t**3 - 5 * t**2 + 8 * t - 4)


_BETWEEN = tuple(map(_cubic, (1.75, 0.75, 0.25, 1.25)))
"""Weights of the samples i - 2 to i + 1 for the pixel a quarter of a sample before i, if samples lie between pixels.
For the pixel behind it they are mirrored."""

_HALFWAY = tuple(map(_cubic, (1.5, 0.5, 0.5, 1.5)))
"""Weights of the samples i - 1 to i + 2 for the pixel behind sample i, if samples lie on pixels."""


def rgb_of(y: Tensor, uv: Tensor, matrix: int, *, full: bool, left: bool = False) -> Tensor:
    """A picture as float32 [1, 3, h, w], the levels 0 to 255 divided by 255.

    y       luma, uint8 [h, w]; h and w even
    uv      chroma, uint8 [h / 2, w / 2, 2]
    matrix  1 BT.709, 5 BT.601, 9 BT.2020, 4 FCC, 7 SMPTE 240M
    full    values have the full range 0 to 255; else luma has 16 to 235 and chroma 16 to 240
    left    chroma lies on the left two of its four pixels, as in MPEG; else in the middle of all
    """
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    across = (_onto if left else _twice)(uv.permute(2, 0, 1).to(torch.float32)).clamp_(max=_MOST)
    chroma = _twice(across.transpose(1, 2)).transpose(1, 2) - 128
    luma = y.to(torch.float32)
    if not full:
        luma, chroma = (luma - 16) * (255 / 219), chroma * (255 / 224)
    cb, cr = chroma
    to_red, to_blue = 2 * (1 - red), 2 * (1 - blue)
    planes = luma + to_red * cr, luma - (blue * to_blue * cb + red * to_red * cr) / green, luma + to_blue * cb
    return torch.stack(planes).round_().clamp_(0, 255).mul_(1 / 255)[None]


def _twice(x: Tensor) -> Tensor:
    """[c, h, w] -> [c, h, 2 w], of samples between pixels."""
    w = x.shape[2]
    wide = pad(x, (2, 2), mode="replicate")
    before = sum((tap * wide[..., j : j + w] for j, tap in enumerate(_BETWEEN)), torch.zeros_like(x))
    behind = sum((tap * wide[..., j + 1 : j + 1 + w] for j, tap in enumerate(_BETWEEN[::-1])), torch.zeros_like(x))
    if w > 2:  # for this one pixel swscale leaves the sample outside of the picture out
        inside = _BETWEEN[1:]
        before[..., 1] = sum(tap * x[..., j] for j, tap in enumerate(inside)) / sum(inside)
    return torch.stack((before, behind), -1).flatten(2)


def _onto(x: Tensor) -> Tensor:
    """[c, h, w] -> [c, h, 2 w], of samples on pixels."""
    w = x.shape[2]
    wide = pad(x, (1, 2), mode="replicate")
    behind = sum((tap * wide[..., j : j + w] for j, tap in enumerate(_HALFWAY)), torch.zeros_like(x))
    return torch.stack((x, behind), -1).flatten(2)
