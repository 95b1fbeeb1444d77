"""Adaptive instance normalisation (Huang and Belongie 2017): a latent with the statistics of another."""

from torch import Tensor

_NOTHING = 1e-5  # added to variances, so that a constant channel stays constant


def adain(x0: Tensor, x0_anchor: Tensor, weight: Tensor | float) -> Tensor:
    """x0 with mean and contrast of each channel moved towards the anchor's.

        x0' = x0 + a (sd_A (x0 - mu) / sd + mu_A - x0),      sd = sqrt(var + 1e-5), var over all N cells

    x0, x0_anchor  [1, c, h, w], finite
    weight         a in [0, 1], a number or a tensor that broadcasts; 0 gives x0 bit for bit

    Unlike the exit lock (`formulas/moment_lock.py`) this also fixes means, so changes of light in the source are lost.
    """
    mean, sd = _moments(x0)
    mean_anchor, sd_anchor = _moments(x0_anchor)
    return x0 + weight * ((x0 - mean) * (sd_anchor / sd) + mean_anchor - x0)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(dim=(2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(2, 3), keepdim=True)
    return mean, (variance + _NOTHING).sqrt()
