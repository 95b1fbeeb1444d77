"""Warping x0 of earlier frames onto a frame, as a latent or as the decoded picture."""

from collections.abc import Sequence

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine, is_capturable
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.diffusion.encode_twice import faithful
from warpfuse.stages.frame import Motion
from warpfuse.stages.parameters import Mode


class LatentWarp:
    """Warps the latents. This is cheap, but blurs, since a cell of 8 x 8 pixels is not shift-equivariant."""

    capturable = True

    def __init__(self, device: str = "cpu") -> None:
        self._ops = arithmetic(device)

    def __call__(self, x0: Sequence[Tensor], motions: Sequence[Motion], mode: Mode) -> list[Tensor]:
        """Every x0, [1, c, h, w], warped along its flow, [1, 2, H, W] in px of the frame. All rows in one warp."""
        size = (x0[0].shape[-2], x0[0].shape[-1])
        flow = torch.cat([self._ops.resize_flow(motion.flow, size) for motion in motions])
        return _rows(self._ops.warp(torch.cat(list(x0)), flow, mode))

    def close(self) -> None:
        """Nothing is held."""


class PictureWarp:
    """Decodes, warps the pictures, and encodes. This keeps them sharp, and costs a decoder and an encoder run for the
    rows. Owns both engines and closes them.

    scale  scale of the UNet's latents
    twice  encode as in `encode_twice.py`
    """

    def __init__(self, decoder: Engine, encoder: Engine, scale: float, *, twice: bool = False) -> None:
        self._decoder = decoder
        self._encoder = encoder
        self._ops = arithmetic(decoder.device)
        self._scale = scale
        self._twice = twice

    def __call__(self, x0: Sequence[Tensor], motions: Sequence[Motion], mode: Mode) -> list[Tensor]:
        """As `LatentWarp`, with all rows as one batch."""
        rgb = _run(self._decoder, "latent", torch.cat(list(x0)) / self._scale, "rgb").clamp(0, 1)
        moved = self._ops.warp(rgb, torch.cat([motion.flow for motion in motions]), mode).clamp_(0, 1)
        moved = moved.contiguous()
        z = _run(self._encoder, "rgb", moved, "latent")
        if self._twice:
            z = z.clone()  # the encoder runs again and reuses its output memory
            again = _run(self._decoder, "latent", z, "rgb").clamp(0, 1)
            z = faithful(z, _run(self._encoder, "rgb", again.contiguous(), "latent"), moved, again)
        return _rows(z * self._scale)

    @property
    def capturable(self) -> bool:
        """Whether a CUDA graph may hold its next call."""
        return all(map(is_capturable, (self._decoder, self._encoder)))

    def close(self) -> None:
        """Close both networks."""
        self._decoder.close()
        self._encoder.close()


def _run(network: Engine, name: str, batch: Tensor, output: str) -> Tensor:
    """The output of a network for a batch. A network built for another batch size gets single pictures."""
    (spec,) = network.inputs
    if spec.shape[0] is None or spec.shape[0] == len(batch):
        return network({name: batch})[output]
    return torch.cat([network({name: row})[output].clone() for row in _rows(batch)])


def _rows(batch: Tensor) -> list[Tensor]:
    return [batch[i : i + 1] for i in range(len(batch))]
