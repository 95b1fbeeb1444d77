"""How well a map of edges has the edges of another: thinned, as many of them, within REACH pixels."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .evaluate import near

WHITE = 0.5  # edges of the map that is aimed at that count
SMOOTH_PX = 1.0  # sigma: ridges are looked for in smooth maps

Map = NDArray[np.float32]  # [h,w] in [0,1]


class EdgeScore(NamedTuple):
    """Of thinned edges: the harmonic mean of precision and recall, and those of both over those of either."""

    f1: float
    iou: float


def edge_score(found: Map, wanted: NDArray[np.bool_]) -> EdgeScore:
    """Of the strongest edges of a map, as many as are wanted. wanted: `thinned_edges`, or another's."""
    strength = ridges(found)
    count = min(int(wanted.sum()), int((strength > 0).sum()))
    least = np.partition(strength.ravel(), -count)[-count] if count else np.inf
    taken = strength >= least
    precision, recall = near(taken, wanted), near(wanted, taken)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return EdgeScore(f1, f1 / (2 - f1))


def thinned_edges(edges: Map) -> NDArray[np.bool_]:
    """The ridges of a map that are WHITE or more."""
    return ridges(edges) >= WHITE


def ridges(edges: Map) -> Map:
    """The map where it is no less than its neighbours across the edge, which is where it bends down most; else 0."""
    smooth = cv2.GaussianBlur(np.asarray(edges, np.float32), (0, 0), SMOOTH_PX)
    xx, yy, xy = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3) for order in ((2, 0), (0, 2), (1, 1)))
    across = np.arctan2(2 * xy, xx - yy) / 2 + np.pi / 2
    y, x = np.mgrid[: smooth.shape[0], : smooth.shape[1]].astype(np.float32)
    dx, dy = np.cos(across).astype(np.float32), np.sin(across).astype(np.float32)
    sides = [
        cv2.remap(smooth, x + way * dx, y + way * dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for way in (-1, 1)
    ]
    bends_down = xx + yy - np.hypot(xx - yy, 2 * xy) < 0
    return np.where(bends_down & (smooth >= sides[0]) & (smooth >= sides[1]), smooth, 0).astype(np.float32)
