"""The frame without its detail: the map of ControlNets called tile, which add detail of their own."""

import cv2
import numpy as np

from warpfuse.stages.controls.host_map import Bytes, HostMap
from warpfuse.stages.controls.settings import TileSettings, control_of
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return HostMap(without_detail, opening.config.controls[control_of(opening.stage)], opening.device)


def without_detail(rgb: Bytes, settings: TileSettings) -> Bytes:
    """uint8 [h, w, 3] -> uint8 [h, w, 3]: scaled down by means over areas, and up again by linear interpolation."""
    if settings.smaller == 1:
        return rgb
    h, w = rgb.shape[:2]
    size = max(1, round(w / settings.smaller)), max(1, round(h / settings.smaller))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)
