"""Composing pictures with transparent parts on a background colour."""

from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

Rgb = tuple[int, int, int]
BLACK: Rgb = (0, 0, 0)


def may_be_transparent(frame: VideoFrame) -> bool:
    """The frame's format has an alpha channel, or a palette, which may have alpha."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def composed(rgba: npt.NDArray[np.uint8], background: Rgb) -> VideoFrame | None:
    """Compose RGBA, uint8 [h, w, 4] with straight alpha, on the background. Returns rgb24; None if it is opaque.

    Coded values are blended, not linear light, as players and browsers do.
    """
    alpha = rgba[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return None
    mixed = rgba[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha)  # 255 * 255 + 127 fits
    shown: Any = ((mixed + np.uint16(127)) // np.uint16(255)).astype(np.uint8)
    return VideoFrame.from_ndarray(shown, format="rgb24")
