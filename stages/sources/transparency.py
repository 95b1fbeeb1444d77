"""Pictures that are transparent in parts, composed on one colour: what they hold below is not meant to be seen."""

from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

Rgb = tuple[int, int, int]
BLACK: Rgb = (0, 0, 0)


def may_be_transparent(frame: VideoFrame) -> bool:
    """Its format has an alpha channel, or a palette, which may have one."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def composed(rgba: npt.NDArray[np.uint8], background: Rgb) -> VideoFrame | None:
    """RGBA, uint8 [h, w, 4], alpha not multiplied in, on the background, as rgb24; None if nothing is transparent.

    The values are blended as they are stored, as players and browsers do."""
    alpha = rgba[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return None
    mixed = rgba[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha)  # 255 * 255 + 127 fits
    shown: Any = ((mixed + np.uint16(127)) // np.uint16(255)).astype(np.uint8)
    return VideoFrame.from_ndarray(shown, format="rgb24")
