"""Given control maps: a still picture, or a source whose frames are maps already."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from warpfuse.stages.controls.settings import control_of
from warpfuse.stages.errors import ControlError
from warpfuse.stages.formulas.pixels import planes_of
from warpfuse.stages.frame import Frame, Picture
from warpfuse.stages.geometry.framing import Framing
from warpfuse.stages.geometry.picture_file import fitted, read_picture
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises ControlError for a file without a picture."""
    name = control_of(opening.stage)
    picture = opening.config.controls[name].picture
    if picture is None:
        return GivenMap(None)
    return GivenMap(read_map(Path(picture), opening.framing, f"controls.{name}.picture").to(opening.device))


def read_map(path: Path, framing: Framing, key: str) -> Tensor:
    """A picture as [1, 3, h, w] in [0, 1], turned upright and fitted into the frame.

    key  the key that names the file, for errors

    Raises ControlError for a missing file, or one without a picture.
    """
    upright = read_picture(path, key, ControlError).convert("RGB")
    return planes_of(torch.from_numpy(np.array(fitted(upright, framing))))


class GivenMap(Stage):
    """Picture -> the given map. rgb: the map, [1, 3, h, w]; None: the frame itself is the map."""

    def __init__(self, rgb: Tensor | None) -> None:
        self._rgb = rgb

    def __call__(self, frame: Picture) -> Picture:
        """The map. It is the same tensor for every frame, since frames are read-only."""
        return Picture(frame.stamp, frame.rgb if self._rgb is None else self._rgb)

    def held(self, frame: Frame) -> Frame:
        """A bare frame: held frames need no map."""
        return Frame(frame.stamp)
