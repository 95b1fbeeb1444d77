"""The mean colours of cells: the map of T2I-Adapters called color, which determine only the colours of a picture."""

import cv2
import numpy as np

from warpfuse.stages.controls.host_map import Bytes, HostMap
from warpfuse.stages.controls.settings import ColourSettings, control_of
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return HostMap(cells, opening.config.controls[control_of(opening.stage)], opening.device)


def cells(rgb: Bytes, settings: ColourSettings) -> Bytes:
    """uint8 [h, w, 3] -> uint8 [h, w, 3]. If the size is no multiple of `cell_px`, the cells are slightly larger."""
    h, w = rgb.shape[:2]
    count = max(1, w // settings.cell_px), max(1, h // settings.cell_px)
    means = cv2.resize(rgb, count, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(means, (w, h), interpolation=cv2.INTER_NEAREST), np.uint8)
