"""Types of parameters that `formulas` and settings share. They are plain values, so that settings need no torch."""

from typing import Literal, NamedTuple

Mode = Literal["sharp", "bicubic", "bilinear", "nearest"]
"""How a picture is interpolated between its pixels (`formulas/backward_warp.py`)."""

Check = Literal["squared", "norm", "off"]
"""How a flow and the backward flow are compared (`Limits`)."""


class Cut(NamedTuple):
    """Thresholds for the first frame of another shot (`formulas.confidence_mask.same_shot`).

    coverage  its mean confidence is below this, in [0, 1]
    colour    and the distance of its colours from those before is above this, in [0, 1]
    """

    coverage: float
    colour: float


class Limits(NamedTuple):
    """Thresholds for the confidence of a pixel, at the size of the flow. f is the flow, b the backward flow.

    check        squared  |f + b|^2 <= slope (|f|^2 + |b|^2) + offset      offset in px^2
                 norm     |f + b|   <= slope (|f| + |b|) + offset          offset in px
                 off      no forward-backward check
    slope        slope of the check
    offset       offset of the check
    photometric  mean |current - warped previous| up to which the confidence is 1, in [0, 1]
    softness     the confidence falls linearly to 0 between `photometric` and (1 + softness) photometric
    """

    check: Check
    slope: float
    offset: float
    photometric: float
    softness: float
