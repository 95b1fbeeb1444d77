"""What keeps the memory from rotting: statistics that are not the memory's own.

A picture that is fed back is styled again and again: what the network adds, and what warping and the autoencoder take
away, comes back with the next frame. Two locks tie the fed-back latent to what does not depend on it:

    entry   z_ref' = low(z) + g (z_ref - low(z_ref)),    g = min(1, std(z - low(z)) / std(z_ref - low(z_ref)))
            The network is shown its own strokes, but the source's colours and no more contrast than the source has:
            it never paints over its own paint.
    exit    x0' = x + m (a - 1) (x - mu_m(x)),      a = running mean of  std_m(x0) / std_m(x),      x the fused x0
            Each channel of what was fused is given the contrast that this frame's own prediction x0 has where the past
            is trusted (m): a blend of strokes that do not quite meet has less. It is to the picture what the rescale
            is to the noise. a is the anchor: it moves slowly, since what flickers in it would flicker in the picture.

low is a mean over 5 x 5 cells; all statistics are for each channel. Without them, sharpness on a still road grew by a
fifth and colours moved by a tenth within 600 frames; bench/bench_consistency.py and bench/bench_drift.py measure both.
"""

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from warpfuse.stages.cpu import moments
from warpfuse.stages.cpu.latents import takes_alike, takes_map
from warpfuse.stages.cpu.moments import LARGEST, NOTHING, RADIUS, SMALLEST
from warpfuse.stages.settings import StageSettings
from warpfuse.stages.solvers.pair import CLEAN, Level, fuse


class AnchorSettings(StageSettings):
    """How the fed-back latent is tied down.

    entry     lock the reference's colours and contrast to the source's at the entry
    exit      0..1: how much of the contrast lost in fusing is given back at the exit
    rate      share of a new frame in the running mean; 1 follows every frame
    coverage  below this mean trust the anchor starts anew from the frame: a cut, or most of what it knew is gone
    drift     so does a channel whose contrast ratio is further from the mean than this factor less 1
    """

    entry: bool = True
    exit: float = Field(1.0, ge=0, le=1)
    rate: float = Field(0.2, gt=0, le=1)
    coverage: float = Field(0.2, ge=0, le=1)
    drift: float = Field(0.5, gt=0)


def lock_to_source(z_ref: Tensor, z: Tensor) -> Tensor:
    """The entry lock: detail of z_ref over the local mean of z, both [1, c, h, w]; no louder than z's own detail."""
    if takes_alike(z, z_ref):
        return moments.locked_to_source(z_ref, z)
    base, base_ref = _low(z), _low(z_ref)
    detail = z_ref - base_ref
    gain = _std(z - base) / _std(detail).clamp_min(NOTHING)
    return torch.addcmul(base, gain.clamp_(max=1.0), detail)


def fuse_locked(
    z: Tensor,
    n: Tensor,
    z_ref: Tensor,
    n_ref: Tensor,
    trust: Tensor,
    weight: float,
    rho: float,
    level: Level,
    inner_strength: float = 1.0,
) -> Tensor:
    """The entry: `sampling.fuse` of z, by weight trust, with z_ref locked to it."""
    if n is n_ref and rho == 1 and takes_alike(z, n, z_ref) and takes_map(trust, z):
        return moments.fused_to_source(z_ref, z, n, trust, weight, level.alpha, level.sigma)
    return fuse(z, n, lock_to_source(z_ref, z), n_ref, trust * weight, rho, level, inner_strength)


class Anchor:
    """The exit lock: one gain a channel, remembered from frame to frame. Nothing in it waits for the device."""

    def __init__(self, settings: AnchorSettings) -> None:
        self._settings = settings
        self._gain: Tensor | None = None

    def update(self, settings: AnchorSettings) -> None:
        """Take new settings; the anchor stays."""
        self._settings = settings

    def reset(self) -> None:
        """Forget: the next frame starts anew."""
        self._gain = None

    def fuse(self, x0: Tensor, x0_ref: Tensor, trust: Tensor, weight: float) -> Tensor:
        """x0 fused with the reference by w = weight trust, with the contrast of the anchor; x0 to the bit where w is 0.

        x0, x0_ref  [1, c, h, w]: this frame's prediction, and the reference
        trust       [1, 1, h, w]
        """
        settings = self._settings
        if settings.exit and takes_alike(x0, x0_ref) and takes_map(trust, x0):
            known = self._gain is not None and self._gain.shape[1] == x0.shape[1]
            if self._gain is None or not known:
                self._gain = x0.new_empty(1, x0.shape[1], 1, 1)
            lock = settings.exit, settings.rate, settings.coverage, settings.drift
            return moments.fused_to_anchor(x0, x0_ref, trust, weight, self._gain, known, lock)
        return self.lock(fuse(x0, None, x0_ref, None, trust * weight, 0.0, CLEAN), x0, trust)

    def lock(self, x: Tensor, x0: Tensor, trust: Tensor) -> Tensor:
        """x with the contrast of the anchor; to the bit x itself where nothing is trusted.

        x, x0  [1, c, h, w]: this frame's prediction after and before fusion
        trust  [1, 1, h, w]
        """
        settings = self._settings
        if settings.exit == 0:
            return x
        mean, std_fused = _seen(x, trust)
        _, std = _seen(x0, trust)
        now = ((std + NOTHING) / (std_fused + NOTHING)).clamp(SMALLEST, LARGEST)
        if self._gain is None or self._gain.shape != now.shape:
            self._gain = now
        ratio = now / self._gain
        near = (ratio <= 1 + settings.drift) & (ratio >= 1 / (1 + settings.drift))
        anew = ~near | (trust.mean() < settings.coverage)  # NaN is not near: it leaves with the frame that brought it
        self._gain = torch.where(anew, now, self._gain + settings.rate * (now - self._gain))
        return torch.addcmul(x, (x - mean).mul_(settings.exit * (self._gain - 1)), trust)


def _low(x: Tensor) -> Tensor:
    """Mean over a square of 2 RADIUS + 1 cells; the edge goes on."""
    return avg_pool2d(pad(x, (RADIUS,) * 4, "replicate"), 2 * RADIUS + 1, 1)


def _std(x: Tensor) -> Tensor:
    # not `std`: its one pass of running means takes ten times as long on a CPU
    n = x[0, 0].numel()
    mean = x.mean(dim=(2, 3), keepdim=True)
    apart = x - mean
    norm: Tensor = torch.linalg.vector_norm(apart, dim=(2, 3), keepdim=True)
    return norm.div_(math.sqrt(n - 1))


def _seen(x: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel where trust is, [1, c, 1, 1]; 0 where there is none."""
    total = trust.sum().clamp_min(NOTHING)
    each, share = x.flatten(2)[0], trust.flatten() / total  # a sum over cells is a product of matrices
    mean = (each @ share)[:, None]
    apart = each - mean
    std = (apart.square_() @ share).sqrt_()
    return mean[None, :, :, None], std[None, :, None, None]
