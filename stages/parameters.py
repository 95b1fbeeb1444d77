"""Parameters of `formulas` that settings name too: plain values, so that settings need no torch."""

from typing import Literal, NamedTuple

Mode = Literal["sharp", "bicubic", "bilinear", "nearest"]
"""How a picture is read between its pixels (`formulas/backward_warp.py`)."""

Check = Literal["squared", "norm", "off"]
"""How two flow fields are held against each other (`Limits`)."""


class Limits(NamedTuple):
    """What a pixel is judged by, at the size of the flow.

    check        squared  |f + b|^2 <= slope (|f|^2 + |b|^2) + offset      offset in px^2
                 norm     |f + b|   <= slope (|f| + |b|) + offset          offset in px
                 off      no forward-backward check
    slope        of the check
    offset       of the check
    photometric  mean |current - warped previous| up to which a pixel is believed, in [0, 1]
    softness     confidence falls to 0 on the way from `photometric` to (1 + softness) photometric
    """

    check: Check
    slope: float
    offset: float
    photometric: float
    softness: float
