"""Lines, white on black, by the extended difference of Gaussians (Winnemoeller, Kyprianidis and Olsen 2012).

d = G_s * luma - 0.98 G_1.6s * luma,     map = tanh(steepness max(0, -threshold - d))
"""

import cv2
import numpy as np

from warpfuse.stages.controls.host_map import Bytes, HostMap
from warpfuse.stages.controls.settings import LineartSettings, control_of
from warpfuse.stages.stage import Opening, Stage

_WIDER, _SHARE = 1.6, 0.98


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return HostMap(lines, opening.config.controls[control_of(opening.stage)], opening.device)


def lines(rgb: Bytes, settings: LineartSettings) -> Bytes:
    """uint8 [h, w, 3] -> uint8 [h, w]."""
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    fine, wide = (np.asarray(cv2.GaussianBlur(luma, (0, 0), settings.sigma * by)) for by in (1.0, _WIDER))
    depth = np.maximum(_SHARE * wide - fine - settings.threshold, 0)
    return np.asarray(cv2.convertScaleAbs(np.tanh(settings.steepness * depth), alpha=255), np.uint8)
