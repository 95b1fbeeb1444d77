"""Soft edges, white on black, as ControlNets called softedge are trained with: thin ridges that fade to both sides.

    c(p) = max over s of sqrt(2 pi) s |grad G_s * luma|(p),    s = 1, 2, 4 px

A sharp step of contrast d has c = d, nearly; a soft one reaches it at the scale of its own width. The map shows the
ridges of c, blurred by one pixel.
"""

import math
from functools import lru_cache

import cv2
import numpy as np

from warpfuse.stages.controls.host_map import Bytes, HostMap
from warpfuse.stages.controls.settings import SoftEdgeSettings, control_of
from warpfuse.stages.stage import Opening, Stage

_SCALES = (1.0, 2.0, 4.0)
_BRUSH_PX = 1.0  # sigma
_ACROSS = np.array([[1, 0, 0]], np.uint8), np.array([[0, 0, 1]], np.uint8)  # each picks one neighbour
_DOWN = np.array([[1], [0], [0]], np.uint8), np.array([[0], [0], [1]], np.uint8)


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return HostMap(SoftEdges(), opening.config.controls[control_of(opening.stage)], opening.device)


class SoftEdges:
    """uint8 [h, w, 3] -> uint8 [h, w]. Not thread-safe.

    Buffers are kept for the next picture of the same size: allocation would cost more than the arithmetic.
    """

    def __init__(self) -> None:
        self._size: tuple[int, ...] = ()

    def __call__(self, rgb: Bytes, settings: SoftEdgeSettings) -> Bytes:
        """The edges of one picture."""
        if rgb.shape[:2] != self._size:
            self._allocate(rgb.shape[:2])
        cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY, self._bytes)
        self._luma[:] = self._bytes
        self._find_contrast()
        self._find_ridges()
        height = math.sqrt(2 * math.pi) * _BRUSH_PX  # makes up for the blur of a line one pixel wide
        drawn = cv2.GaussianBlur(self._ridges, (0, 0), _BRUSH_PX, self._blurred)
        cv2.convertScaleAbs(drawn, self._bytes, height)
        return np.asarray(cv2.LUT(self._bytes, _levels(settings)), np.uint8)

    def _allocate(self, size: tuple[int, ...]) -> None:
        self._size = size
        self._luma, self._blurred, self._across, self._down, self._found, self._c, self._ridges = (
            np.empty(size, np.float32) for _ in range(7)
        )
        self._bytes, self._wide, self._tall, self._chosen, self._peak, self._other = (
            np.empty(size, np.uint8) for _ in range(6)
        )

    def _find_contrast(self) -> None:
        """Compute c, in levels, and `wide`: 255 where the gradient is more horizontal than vertical. Both are taken at
        the scale with the largest c."""
        self._c.fill(0)
        self._wide.fill(0)
        for scale in _SCALES:
            cv2.GaussianBlur(self._luma, (0, 0), scale, self._blurred)
            factor = math.sqrt(2 * math.pi) * scale / 2  # the difference is over two pixels
            cv2.Sobel(self._blurred, cv2.CV_32F, 1, 0, self._across, 1, factor)
            cv2.Sobel(self._blurred, cv2.CV_32F, 0, 1, self._down, 1, factor)
            cv2.magnitude(self._across, self._down, self._found)
            np.absolute(self._across, self._across)
            np.absolute(self._down, self._down)
            cv2.compare(self._across, self._down, cv2.CMP_GE, self._other)
            cv2.copyTo(self._other, cv2.compare(self._found, self._c, cv2.CMP_GT, self._chosen), self._wide)
            cv2.max(self._found, self._c, self._c)

    def _find_ridges(self) -> None:
        """Compute the ridges: c where it is at least one neighbour along the gradient and above the other; else 0."""
        cv2.bitwise_not(self._wide, self._tall)
        self._chosen.fill(0)
        for (before, behind), here in ((_ACROSS, self._wide), (_DOWN, self._tall)):
            cv2.compare(self._c, cv2.dilate(self._c, before, self._found), cv2.CMP_GE, self._peak)
            cv2.compare(self._c, cv2.dilate(self._c, behind, self._found), cv2.CMP_GT, self._other)
            cv2.copyTo(cv2.bitwise_and(self._peak, self._other, self._peak), here, self._chosen)
        self._ridges.fill(0)
        cv2.copyTo(self._c, self._chosen, self._ridges)


@lru_cache(maxsize=8)
def _levels(settings: SoftEdgeSettings) -> Bytes:
    """Look-up table: contrast in levels -> level of the map."""
    share = (np.arange(256) / 255 - settings.low) / (settings.high - settings.low)
    return np.rint(255 * share.clip(0, 1) ** settings.gamma).astype(np.uint8)
