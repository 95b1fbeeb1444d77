"""How pictures of a source lie in the frames of a run: turned, mirrored, and cropped, padded or stretched to fit."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

Fit = Literal["fill", "letterbox", "stretch"]
"""fill: crop to the shape of the frame; letterbox: the whole picture and black bars; stretch: the whole picture."""

Rotation = Literal[0, 90, 180, 270]
"""Degrees clockwise."""

Size = tuple[int, int]
"""(width, height), pixels."""


def turned(size: Size, rotate: Rotation) -> Size:
    """The size of a picture after it is rotated."""
    return size if rotate in (0, 180) else (size[1], size[0])


@dataclass(frozen=True, slots=True)
class PixelRect:
    """A part of a picture, pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """This part of a picture [h, w, c], as a view."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Framing:
    """How pictures of a source become frames. What follows from the sizes is worked out once.

    source  size of the source's pictures, as it gives them
    size    size of the frames in the networks
    shown   size of the frames that are shown. If its shape differs from that of `size`, the networks see the frame
            squeezed, since they take certain sizes only
    rotate  rotation of the source's pictures
    fit     how a picture whose shape is not that of `shown` fits into the frame
    """

    source: Size
    size: Size
    shown: Size
    rotate: Rotation = 0
    fit: Fit = "fill"

    @cached_property
    def aspect(self) -> float:
        """Width of a frame by its height, as shown."""
        return self.shown[0] / self.shown[1]

    def over(self, drawn: Size) -> "Framing":
        """How pictures of this size that somebody drew over what is seen become frames: upright, fitted likewise."""
        return replace(self, source=drawn, rotate=0)

    def content(self, frame: Size) -> PixelRect:
        """The part of a frame of this size that is no bar."""
        width, height = frame
        if self.fit == "letterbox":
            wider = self._upright / self.aspect
            width, height = (width, round(height / wider)) if wider > 1 else (round(width * wider), height)
            # A bar of half a pixel comes from rounding.
            width, height = (
                side if whole - side > 1 else whole for side, whole in zip((width, height), frame, strict=True)
            )
            width, height = max(1, width), max(1, height)
        return PixelRect((frame[0] - width) // 2, (frame[1] - height) // 2, width, height)

    @cached_property
    def asked(self) -> Size:
        """The size at which to open a source that crops to a shape and scales by itself."""
        width, height = self._content.width, self._content.height
        if not self._has_shape(width, height):
            wide = self._shape * height
            width, height = (round(wide), height) if wide > width else (width, round(width / self._shape))
        return turned((max(2, width), max(2, height)), self.rotate)

    def __call__(self, rgb: npt.NDArray[np.uint8], *, mirror: bool = False) -> npt.NDArray[np.uint8]:
        """The frame for a picture of the source, uint8 [h, w, 3], C-contiguous.

        mirror  left and right change places, after the rotation

        A picture is cropped here and padded. The frame has `size` if there are bars or the picture was of the `asked`
        size and shape; else it is to be scaled, which is left to who needs it (`upload.py`).
        """
        if self.rotate:
            rgb = np.rot90(rgb, -self.rotate // 90)
        if mirror:
            rgb = rgb[:, ::-1]
        rgb = self._cropped(rgb)
        content = self._content
        if (content.width, content.height) == self.size:
            return np.ascontiguousarray(rgb)
        frame = np.zeros((self.size[1], self.size[0], rgb.shape[2]), np.uint8)
        content.of(frame)[:] = scaled(rgb, (content.width, content.height))
        return frame

    def part(self, picture: Size) -> PixelRect | None:
        """The part of a picture of this size that is its frame but for its size; None: more is to be done."""
        content = self._content
        if self.rotate or (content.width, content.height) != self.size:
            return None
        return self._kept(picture)

    @cached_property
    def _content(self) -> PixelRect:
        return self.content(self.size)

    @cached_property
    def _upright(self) -> float:
        width, height = turned(self.source, self.rotate)
        return width / height

    @cached_property
    def _shape(self) -> float:
        """Width by height of the part of a picture that is used, after the rotation."""
        return self.aspect if self.fit == "fill" else self._upright

    def _has_shape(self, width: int, height: int) -> bool:
        """A picture of this size has the shape that is used, but for rounding."""
        return abs(width - self._shape * height) < 1 or abs(width / self._shape - height) < 1

    def used(self, picture: Size) -> tuple[float, float, float, float]:
        """The part of an upright picture of this size that is used: left, top, right and bottom."""
        width, height = picture
        keep_w, keep_h = min(width, height * self._shape), min(height, width / self._shape)
        left, top = (width - keep_w) / 2, (height - keep_h) / 2
        return left, top, left + keep_w, top + keep_h

    def _cropped(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        height, width = rgb.shape[:2]
        return self._kept((width, height)).of(rgb)

    def _kept(self, picture: Size) -> PixelRect:
        width, height = picture
        if turned(picture, self.rotate) == self.asked or self._has_shape(width, height):
            return PixelRect(0, 0, width, height)
        left, top, right, bottom = self.used(picture)
        keep_w, keep_h = max(1, round(right - left)), max(1, round(bottom - top))
        return PixelRect((width - keep_w) // 2, (height - keep_h) // 2, keep_w, keep_h)


def scaled(picture: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """A picture [h, w, c] at this size: enlarged bicubically, shrunk by averaging areas.

    Lanczos is 0.3 to 1 dB closer to a picture styled at the larger size, and takes 16 times as long (bench/LOG.md).
    """
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    import cv2  # as late as can be: a configuration is checked without it

    shrinks = size[0] * size[1] < width * height
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
