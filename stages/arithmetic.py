"""The arithmetic of stages: one set of functions in three implementations, for a CPU, a card and other devices.

A stage calls `arithmetic` once, when it is opened, and uses the implementation it returns. `formulas` defines what each
function computes. `cpu` computes the same faster for tensors on a CPU, `cuda` for tensors on an NVIDIA card.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from warpfuse.stages import cpu, cuda, formulas
from warpfuse.stages.cuda.kernels import missing
from warpfuse.stages.formulas.confidence_mask import PictureColours
from warpfuse.stages.parameters import Cut, Limits, Mode


class Arithmetic(Protocol):
    """The functions with several implementations. Each is described in its file of `formulas`."""

    def warp(self, prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
        """`formulas/backward_warp.py`."""

    def warp_picture(self, rgb_prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
        """`formulas/backward_warp.py`."""

    def resize_flow(self, flow_px: Tensor, size: tuple[int, int]) -> Tensor:
        """`formulas/backward_warp.py`."""

    def seen(self, rgb: Tensor, size: tuple[int, int], cell: int) -> tuple[Tensor, Tensor]:
        """`formulas/downscale.py`."""

    def resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """`formulas/downscale.py`."""

    def confidence(
        self, flow_cur_to_prev: Tensor, flow_prev_to_cur: Tensor | None, cur: Tensor, prev: Tensor, limits: Limits
    ) -> tuple[Tensor, Tensor]:
        """`formulas/confidence_mask.py`."""

    def trusted(
        self,
        flow_cur_to_prev: Tensor,
        flow_prev_to_cur: Tensor | None,
        unique: Tensor | None,
        cur: PictureColours,
        prev: PictureColours,
        limits: Limits,
        growth: tuple[int, int],
        cut: Cut,
    ) -> Tensor:
        """`formulas/confidence_mask.py`."""

    def reduce_to_latent(self, trust: Tensor, factor: int, norm: float = math.inf) -> Tensor:
        """`formulas/confidence_mask.py`."""

    def colour_histogram(self, rgb: Tensor, every: int = 1) -> Tensor:
        """`formulas/confidence_mask.py`."""

    def grown(self, confidence: Tensor, dilate_px: int, feather_px: int) -> Tensor:
        """`formulas/confidence_mask.py`."""

    def lock_to_prediction(
        self,
        x: Tensor,
        x0: Tensor,
        trust: Tensor,
        gain: Tensor | None,
        exit: float,
        rate: float,
        coverage: float,
        drift: float,
    ) -> tuple[Tensor, Tensor]:
        """`formulas/moment_lock.py`."""

    def fuse_at_entry(
        self,
        z: Tensor,
        n: Tensor,
        z_ref: Tensor,
        n_ref: Tensor,
        trust: Tensor,
        weight: Tensor,
        rho: float,
        alpha: float,
        sigma: float,
        inner_strength: float,
        locked: bool,
    ) -> Tensor:
        """`formulas/fusion.py`."""

    def fuse_at_exit(
        self,
        x0: Tensor,
        x0_ref: Tensor,
        trust: Tensor,
        weight: Tensor,
        gain: Tensor | None,
        exit: float,
        rate: float,
        coverage: float,
        drift: float,
    ) -> tuple[Tensor, Tensor]:
        """`formulas/fusion.py`."""

    def lock_to_source(self, z_ref: Tensor, z: Tensor) -> Tensor:
        """`formulas/moment_lock.py`."""

    def composed(self, paint: Tensor, cover: Tensor | None, table: Tensor | None, shares: Tensor) -> Tensor:
        """`formulas/composite.py`."""

    def cored(self, x: Tensor, past: Tensor, trust: Tensor, numbers: Tensor) -> Tensor:
        """`formulas/composite.py`."""

    def fuse_lines(self, cover: Tensor, past: Tensor, trust: Tensor, numbers: Tensor, coring: bool) -> Tensor:
        """`formulas/composite.py`."""

    def as_sharp_as(self, drawn: Tensor, fused: Tensor) -> Tensor:
        """`formulas/composite.py`."""

    def planes_of(self, pixels: Tensor) -> Tensor:
        """`formulas/pixels.py`."""

    def bytes_of(self, rgb: Tensor) -> Tensor:
        """`formulas/pixels.py`."""


def arithmetic(device: str | torch.device) -> Arithmetic:
    """The implementation for tensors on `device`. On a card that cannot run kernels of ours it is `formulas`, which is
    slower; `cuda.kernels.missing` says why."""
    kind = torch.device(device).type
    if kind == "cpu":
        return cpu
    return cuda if kind == "cuda" and missing(device) is None else formulas
