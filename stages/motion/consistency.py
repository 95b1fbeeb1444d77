"""Measures of the temporal consistency of a styled video, along the motion of its source.

Further figures reveal a video that is steady only because it is blurred or frozen.
"""

import math
from typing import TypedDict

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu import warp
from warpfuse.stages.cpu.downscale import luma_bytes
from warpfuse.stages.frame import Motion, Picture, Stamp
from warpfuse.stages.motion.dis_flow import Flow, dis_flow, open_dis
from warpfuse.stages.motion.settings import ConfidenceSettings, FlowSettings

Rgb = npt.NDArray[np.uint8]

# Independent of the stages' defaults, so that figures of different versions can be compared.
_MOTION = FlowSettings(
    preset="medium",
    backward_flow="always",
    long_side=None,
    trust=ConfidenceSettings(
        check="squared",
        slope=0.01,
        offset=0.5,
        photometric=0.12,
        softness=0.5,
        dilate_px=2,
        feather_px=2,
        cut_coverage=0.2,
        cut_colour=0.2,
    ),
    trust_cell=1,
)
_LEAST_TRUSTED = 0.05  # a pair of frames with a lower mean trust counts as a cut


class Figures(TypedDict):
    """The figures that `warpfuse metrics --json` prints. Pixel values are in [0, 1].

    I is the source, O the styled video, F the flow, m the trust.

    e_warp         mean over pairs of  sum m |warp(O_prev) - O_cur|^2 / sum m,  |.|^2 a mean over the channels
    e_warp_source  the same for the source: the lower limit set by flow errors and real change
    tof            mean over pairs of  sum m |F(O_cur, O_prev) - F(I_cur, I_prev)| / sum m, pixels: how far the motion
                   of the styled video differs from the source's (a frozen video has none)
    sharpness      mean over styled frames of the variance of the luma's Laplacian
    hf_energy      mean over styled frames of the square of luma minus its Gaussian blur (sigma 2 px)
    pairs          number of pairs of consecutive frames compared; pairs across a cut are left out

    sharpness and hf_energy reveal a blur, which lowers e_warp many times over. Compare them as ratios to a run without
    fusion. A figure is NaN where nothing could be compared.
    """

    e_warp: float
    e_warp_source: float
    tof: float
    sharpness: float
    hf_energy: float
    pairs: int


class _Pictures:
    """One frame of both videos: float32 [1, 3, h, w] in [0, 1]."""

    def __init__(self, source: Tensor, styled: Tensor) -> None:
        self.source, self.styled, self.styled_gray = source, styled, luma_bytes(styled)

    def both(self) -> Tensor:
        return torch.cat((self.source, self.styled), dim=1)


class Consistency:
    """Accumulates the figures over a stream of (source, styled) pictures. It keeps two of each.

        consistency = Consistency()
        for source, styled in frames:
            consistency.add(source, styled)
        print(consistency.figures())

    Motion and trust (m) are computed from the source at the size of the styled pictures: DIS medium, with
    forward-backward and photometric checks.
    """

    def __init__(self) -> None:
        self._flow = Flow(_MOTION)
        self._dis = open_dis("medium")
        self._before: _Pictures | None = None
        self._frames = self._pairs = 0
        self._e_warp = self._e_warp_source = self._tof = self._sharpness = self._hf_energy = 0.0

    def add(self, source: Rgb, styled: Rgb) -> None:
        """Add the next frame, uint8 RGB [h, w, 3] each. The source is resized to the size of the styled picture.

        Raises ValueError for pictures of another type or shape, or if the size of the styled pictures changes.
        """
        for name, picture in (("source", source), ("styled", styled)):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(f"{name}: uint8 [h, w, 3] needed, got {picture.dtype} {list(picture.shape)}")
        h, w = styled.shape[:2]
        if self._before is not None and self._before.styled_gray.shape != (h, w):
            raise ValueError(f"styled: {list(self._before.styled_gray.shape)} until now, {[h, w]} at {self._frames}")
        if source.shape != styled.shape:
            source = np.asarray(cv2.resize(source, (w, h), interpolation=cv2.INTER_AREA), np.uint8)
        present = _Pictures(_as_tensor(source), _as_tensor(styled))
        gray = present.styled_gray
        self._sharpness += float(cv2.Laplacian(gray.astype(np.float32) / 255, cv2.CV_32F).var())
        self._hf_energy += _hf_energy(gray)
        motion = self._flow(Picture(Stamp(self._frames, 0), present.source))
        before, self._before = self._before, present
        self._frames += 1
        if before is not None:
            self._compare(before, present, motion)

    def figures(self) -> Figures:
        """The figures of the frames so far. More frames may be added afterwards."""
        return Figures(
            e_warp=_mean(self._e_warp, self._pairs),
            e_warp_source=_mean(self._e_warp_source, self._pairs),
            tof=_mean(self._tof, self._pairs),
            sharpness=_mean(self._sharpness, self._frames),
            hf_energy=_mean(self._hf_energy, self._frames),
            pairs=self._pairs,
        )

    def _compare(self, before: _Pictures, present: _Pictures, motion: Motion) -> None:
        m, flow = motion.trust, motion.flow
        if float(m.mean()) < _LEAST_TRUSTED:
            return
        gap2 = (warp(before.both(), flow, "bilinear") - present.both()).square()
        flow_styled = dis_flow(self._dis, present.styled_gray, before.styled_gray)
        self._pairs += 1
        self._e_warp_source += _over(m, gap2[:, :3].mean(1, keepdim=True))
        self._e_warp += _over(m, gap2[:, 3:].mean(1, keepdim=True))
        self._tof += _over(m, (flow_styled - flow).square().sum(1, keepdim=True).sqrt())


def _as_tensor(picture: Rgb) -> Tensor:
    """uint8 [h, w, 3] -> float32 [1, 3, h, w] in [0, 1]. Not left as bytes, since differences of bytes wrap around."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].to(torch.float32) / 255


def _hf_energy(gray: Rgb) -> float:
    luma = gray.astype(np.float32) / 255
    return float(np.square(luma - cv2.GaussianBlur(luma, (0, 0), 2.0)).mean())


def _over(m: Tensor, values: Tensor) -> float:
    return float((m * values).sum() / m.sum())


def _mean(total: float, count: int) -> float:
    return total / count if count else math.nan
