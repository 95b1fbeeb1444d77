"""The trust of a flow on a CPU: dilation and blur of low confidence, by OpenCV."""

import cv2
import numpy as np
from torch import Tensor

from warpfuse.stages.cpu.backward_warp import confidence
from warpfuse.stages.cpu.opencv import each_plane
from warpfuse.stages.formulas.confidence_mask import PictureColours, binomial, in_shot
from warpfuse.stages.parameters import Cut, Limits


def trusted(
    flow_cur_to_prev: Tensor,
    flow_prev_to_cur: Tensor | None,
    unique: Tensor | None,
    cur: PictureColours,
    prev: PictureColours,
    limits: Limits,
    growth: tuple[int, int],
    cut: Cut,
) -> Tensor:
    """As `formulas.trusted`."""
    judged = confidence(flow_cur_to_prev, flow_prev_to_cur, cur.rgb, prev.rgb, limits)
    return in_shot(judged, unique, cur, prev, growth, cut, grown)


def grown(confidence: Tensor, dilate_px: int, feather_px: int) -> Tensor:
    """As `formulas.grown`."""
    if dilate_px:
        square = np.ones((2 * dilate_px + 1,) * 2, np.uint8)
        confidence = each_plane(confidence, lambda plane, out: cv2.erode(plane, square, out))
    if not feather_px:
        return confidence
    taps, edge = binomial(feather_px).numpy(), cv2.BORDER_REPLICATE
    blurred = each_plane(confidence, lambda plane, out: cv2.sepFilter2D(plane, -1, taps, taps, out, borderType=edge))
    return blurred.clamp_(0, 1)
