"""A control map that is there already: a still picture, or the frames of a source that are maps themselves."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from warpfuse.stages.controls.settings import control_of
from warpfuse.stages.errors import ControlError
from warpfuse.stages.formulas.pixels import planes_of
from warpfuse.stages.frame import Frame, Picture
from warpfuse.stages.picture_file import read_picture
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises ControlError: a file that holds no picture."""
    name = control_of(opening.stage)
    picture = opening.config.controls[name].picture
    if picture is None:
        return GivenMap(None)
    return GivenMap(read_map(Path(picture), opening.size, f"controls.{name}.picture").to(opening.device))


def read_map(path: Path, size: tuple[int, int], key: str) -> Tensor:
    """[1, 3, h, w] in [0, 1]: a picture upright, scaled to cover (width, height), cropped about its middle.

    key  that names the file, for the error

    Raises ControlError: no such file, or no picture in it.
    """
    upright = read_picture(path, key, ControlError).convert("RGB")
    fitted = ImageOps.fit(upright, size, Image.Resampling.LANCZOS)
    return planes_of(torch.from_numpy(np.array(fitted)))


class GivenMap(Stage):
    """Picture -> the map that was given; None: the frame itself is the map."""

    def __init__(self, rgb: Tensor | None) -> None:
        self._rgb = rgb

    def __call__(self, frame: Picture) -> Picture:
        """The same tensor with every frame: who reads frames does not write them."""
        return Picture(frame.stamp, frame.rgb if self._rgb is None else self._rgb)

    def held(self, frame: Frame) -> Frame:
        """Nothing is made of a held frame."""
        return Frame(frame.stamp)
