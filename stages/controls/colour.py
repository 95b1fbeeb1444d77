"""The mean colours of cells: the map of T2I-Adapters called color, which hold the colours of a picture alone."""

import cv2
import numpy as np

from warpfuse.stages.controls.host_map import Bytes, HostMap
from warpfuse.stages.controls.settings import ColourSettings, control_of
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return HostMap(cells, opening.config.controls[control_of(opening.stage)], opening.device)


def cells(rgb: Bytes, settings: ColourSettings) -> Bytes:
    """uint8 [h, w, 3] -> the same; a picture that is no whole number of cells has slightly larger ones."""
    h, w = rgb.shape[:2]
    count = max(1, w // settings.cell_px), max(1, h // settings.cell_px)
    means = cv2.resize(rgb, count, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(means, (w, h), interpolation=cv2.INTER_NEAREST), np.uint8)
