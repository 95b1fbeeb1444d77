"""Masks from a file: a picture, an image sequence, or a video."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from warpfuse.engine.cuda_streams import ToDevice
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.errors import MaskError
from warpfuse.stages.formulas.downscale import luma
from warpfuse.stages.frame import Frame, Mask
from warpfuse.stages.geometry.framing import Framing
from warpfuse.stages.masking.drawing import check_file
from warpfuse.stages.masking.mask import finished, settings_of
from warpfuse.stages.masking.settings import MaskSettings
from warpfuse.stages.sources import open_source, probe
from warpfuse.stages.stage import Opening, Source, Stage

__all__ = ["FileMask", "open", "settings_of"]


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises MaskError."""
    settings: MaskSettings = opening.config.mask
    check_file(settings.of)
    info = probe(settings.of)
    framing = opening.framing.over((info.width, info.height))
    return FileMask(partial(open_source, settings.of, size=framing.asked), settings, opening.device, framing)


class FileMask(Stage):
    """Frame -> Mask: the luma of the file's picture with the number of the frame; after the end its last picture.

    drawing  opens the file from its beginning
    framing  fits its pictures into the frame

    A repeated frame gets no mask.
    """

    def __init__(self, drawing: Callable[[], Source], settings: MaskSettings, device: str, framing: Framing) -> None:
        self._open = drawing
        self._source: Source | None = None
        self._ops = arithmetic(device)
        self._to_device = ToDevice(device)
        self._settings = settings
        self._framing = framing
        self._next = 0
        self._drawn: Tensor | None = None

    def __call__(self, frame: Frame) -> Mask:
        """The mask of one frame."""
        drawn = self._drawn_for(frame.stamp.seq)
        return Mask(frame.stamp, finished(drawn, self._settings, self._ops))

    def held(self, frame: Frame) -> Frame:
        """A bare frame for a repeated frame; else as `__call__`."""
        return Frame(frame.stamp) if frame.stamp.hold == "repeat" else self(frame)

    def update(self, settings: MaskSettings) -> None:
        """Use new settings from the next frame on."""
        self._settings = settings

    def close(self) -> None:
        """Close the file."""
        self._to_device.close()
        if self._source is not None:
            self._source.close()

    def _drawn_for(self, seq: int) -> Tensor:
        if self._source is None or seq < self._next - 1:  # numbers go back when a run restarts after losing a worker
            if self._source is not None:
                self._source.close()
            self._source, self._next = self._open(), 0
        newest = None
        while self._next <= seq and (picture := self._source.read()) is not None:
            newest, self._next = picture, self._next + 1
        if newest is not None:
            pixels = np.require(self._framing(newest.rgb), requirements=["C", "W"])
            drawn = luma(self._ops.planes_of(self._to_device(torch.from_numpy(pixels))))[None, None]
            self._drawn = self._ops.resized(drawn, self._framing.size[::-1])
        if self._drawn is None:
            raise MaskError(f"mask.of {self._settings.of}: there is no picture in it")
        return self._drawn
