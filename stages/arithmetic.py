"""The arithmetic of stages: one set of functions in two implementations, for a CPU and for other devices.

A stage calls `arithmetic` once, when it is opened, and uses the implementation it returns. `formulas` defines what each
function computes. `cpu` computes the same faster for tensors on a CPU.
"""

from typing import Protocol

import torch
from torch import Tensor

from warpfuse.stages import cpu, formulas
from warpfuse.stages.parameters import Limits, Mode


class Arithmetic(Protocol):
    """The functions with two implementations. Each is described in its file of `formulas`."""

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

    def lock_to_source(self, z_ref: Tensor, z: Tensor) -> Tensor:
        """`formulas/moment_lock.py`."""

    def composed(self, paint: Tensor, cover: Tensor | None, table: Tensor | None, shares: Tensor) -> Tensor:
        """`formulas/composite.py`."""

    def as_sharp_as(self, drawn: Tensor, fused: Tensor) -> Tensor:
        """`formulas/composite.py`."""

    def bytes_of(self, rgb: Tensor) -> Tensor:
        """`formulas/pixels.py`."""


def arithmetic(device: str | torch.device) -> Arithmetic:
    """The implementation for tensors on `device`."""
    return cpu if torch.device(device).type == "cpu" else formulas
