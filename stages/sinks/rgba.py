"""Pictures with a fourth byte a pixel, as programs that share pictures take them."""

import numpy as np
import numpy.typing as npt


class Rgba:
    """uint8 RGB [h, w, 3] -> uint8 RGBA [h, w, 4], opaque, in a buffer that the next call fills again."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._buffer = np.full((size[1], size[0], 4), 255, np.uint8)

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The picture with its fourth byte."""
        self._buffer[..., :3] = rgb
        return self._buffer
