"""Entry and exit fusion on a CPU, with the compiled locks."""

from torch import Tensor

from warpfuse.stages.cpu.moment_lock import lock_to_prediction, lock_to_source
from warpfuse.stages.formulas.fusion import fuse_clean, fuse_pair


def fuse_at_entry(
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
    """As `formulas.fuse_at_entry`."""
    if locked:
        z_ref = lock_to_source(z_ref, z)
    return fuse_pair(z, n, z_ref, n_ref, trust * weight, rho, alpha, sigma, inner_strength)


def fuse_at_exit(
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
    """As `formulas.fuse_at_exit`."""
    return lock_to_prediction(fuse_clean(x0, x0_ref, trust * weight), x0, trust, gain, exit, rate, coverage, drift)
