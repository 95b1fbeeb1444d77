"""Edges by Canny (1986), white on black: the maps that ControlNets called canny are trained with."""

import cv2
import numpy as np

from warpfuse.stages.controls.host_map import Bytes, HostMap
from warpfuse.stages.controls.settings import CannySettings, control_of
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return HostMap(edges, opening.config.controls[control_of(opening.stage)], opening.device)


def edges(rgb: Bytes, settings: CannySettings) -> Bytes:
    """uint8 [h, w, 3] -> uint8 [h, w], 0 or 255."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.Canny(gray, settings.low, settings.high), np.uint8)
