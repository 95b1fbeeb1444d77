"""A keyframe as the anchor in the sampler: its latent, used as x0 after every call, and its tokens."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine
from warpfuse.stages.borrowed import owned
from warpfuse.stages.diffusion.anchor_past import AnchorPast
from warpfuse.stages.diffusion.attention import CrossFrame, Key, same_tensors
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.rows import Row
from warpfuse.stages.diffusion.schedule import FrameSchedule
from warpfuse.stages.frame import Motion
from warpfuse.stages.solvers.pair import compose


class KeyframePast:
    """Latent and tokens of a keyframe, computed once for each keyframe and settings.

    encoder  opens the encoder, with the first keyframe that is used; it is owned and closed
    scale    scale of the UNet's latents

    A keyframe is [1, 3, h, w] in [0, 1].
    """

    def __init__(self, encoder: Callable[[], Engine], scale: float) -> None:
        self._open = encoder
        self._encoder: Engine | None = None
        self._scale = scale
        self._rgb: Tensor | None = None
        self._z: Tensor | None = None
        self._schedule: FrameSchedule | None = None
        self._tokens: dict[Key, Tensor] = {}

    def anchor(self, rgb: Tensor, calls: int, motion: Motion) -> AnchorPast:
        """The keyframe as the anchor for the frame of `motion`. calls: network calls a frame."""
        z = self._latent(rgb)
        return AnchorPast(dict.fromkeys(range(calls), z), motion, z.new_ones(1, 1, 1, 1))

    def tokens(self, rgb: Tensor, row: Row, denoise: Denoise, attention: CrossFrame) -> dict[Key, Tensor]:
        """Tokens of the keyframe for frames with the settings of `row`, by one pass of the network for each call.

        At each level the keyframe gets the noise of slot 0, with which frames start, and the hints of the row.
        """
        z = self._latent(rgb)
        if not self._tokens or not _same_passes(self._schedule, row.schedule):
            alone = replace(row, source=z, before=None, anchor=None, reference=None, past=attention.alone())
            assert alone.past is not None
            for k, call in enumerate(row.schedule.plan):
                alone.k, alone.x = k, compose(z, row.noises.slot(0, z.shape), call.level)
                denoise([alone])
            self._schedule, self._tokens = row.schedule, alone.past.anchors
        return self._tokens

    def close(self) -> None:
        """Close the encoder."""
        if self._encoder is not None:
            self._encoder.close()

    def _latent(self, rgb: Tensor) -> Tensor:
        before = self._rgb
        if self._z is not None and before is not None and (before is rgb or torch.equal(before, rgb)):
            return self._z  # values are compared, since from another process each frame brings a copy
        if self._encoder is None:
            self._encoder = self._open()
        self._rgb, self._tokens = owned(rgb), {}
        self._z = self._encoder({"rgb": rgb.contiguous()})["latent"] * self._scale
        return self._z


def _same_passes(before: FrameSchedule | None, now: FrameSchedule) -> bool:
    """Both schedules have the same levels and conditioning, so the same passes."""
    if before is None or [call.level for call in before.plan] != [call.level for call in now.plan]:
        return False
    same = same_tensors(before.conditioning, now.conditioning)
    return same and same_tensors(before.unconditional, now.unconditional)
