"""The files of a keyframe: what is wrong with them is told before torch is loaded."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from warpfuse.stages.errors import KeyframeError
from warpfuse.stages.geometry.framing import Framing
from warpfuse.stages.geometry.picture_file import fitted, read_picture
from warpfuse.stages.motion.settings import AnchorSettings


def check_keyframe(settings: AnchorSettings) -> None:
    """Raise KeyframeError for a file that cannot be read."""
    for key, name in (("picture", settings.picture), ("frame", settings.frame)):
        if settings.picture and name:
            read_picture(Path(name), f"stages.anchor.{key}", KeyframeError).convert("RGBA")


def versions_of(settings: AnchorSettings) -> tuple[tuple[str, int, int], ...]:
    """Of each file its name, time of change and bytes: what differs is to be read again."""
    found = []
    for name in sorted(settings.files):
        try:
            at = Path(name).expanduser().stat()
        except OSError:
            continue  # reading it says why
        found.append((name, at.st_mtime_ns, at.st_size))
    return tuple(found)


def read_fitted(name: str, framing: Framing, key: str) -> npt.NDArray[np.uint8]:
    """RGBA [h, w, 4] of a file, fitted into the frame. Raises KeyframeError.

    key  that names it, under stages.anchor
    """
    image = read_picture(Path(name), f"stages.anchor.{key}", KeyframeError).convert("RGBA")
    return np.array(fitted(image, framing))
