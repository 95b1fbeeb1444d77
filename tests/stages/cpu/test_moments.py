"""The locks' kernels say what torch says of the same in float64."""

import math

import pytest
import torch

from warpfuse.stages.cpu import moments
from warpfuse.stages.diffusion import moment_lock as anchor_module
from warpfuse.stages.diffusion.moment_lock import Anchor, AnchorSettings, fuse_locked, lock_to_source
from warpfuse.stages.solvers.pair import CLEAN, Level, compose, fuse

SHAPES = [(1, 32, 64, 64), (1, 4, 128, 160), (1, 4, 33, 47), (2, 4, 9, 5), (1, 3, 4, 3), (1, 2, 3, 40), (3, 2, 2, 2)]
VP = Level(0.6, 0.8, 600.0)
ROUNDINGS = 16 * 2**-23


def latent(shape, seed, gain=1.0, offset=0.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * gain + offset


def map_of(shape):
    trust = torch.rand((1, 1, *shape[2:]), generator=torch.Generator().manual_seed(9))
    trust[..., :1] = 0
    return trust


def near(got, wanted):
    return got.dtype == torch.float32 and bool((got - wanted).abs().max() <= ROUNDINGS * (1 + wanted.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_the_entry_lock_is_that_of_torch(shape, gain, monkeypatch):
    z, z_ref = latent(shape, 0, offset=2.0), latent(shape, 1, gain, -3.0)
    got = lock_to_source(z_ref, z)
    assert near(got, lock_to_source(z_ref.double(), z.double()))
    monkeypatch.setattr(anchor_module, "RADIUS", moments.RADIUS + 1)
    assert not near(got, lock_to_source(z_ref.double(), z.double())), "control: another radius"


@pytest.mark.parametrize("shape", SHAPES)
def test_locked_and_fused_at_once_is_the_one_after_the_other(shape, monkeypatch):
    z, n, z_ref, trust = latent(shape, 0, offset=2.0), latent(shape, 1), latent(shape, 2, 3.0, -3.0), map_of(shape)
    got = fuse_locked(z, n, z_ref, n, trust, 0.8, 1.0, VP)
    assert near(got, fuse(z, n, lock_to_source(z_ref, z), n, 0.8 * trust, 1.0, VP).double())
    wide = [x.double() for x in (z, n, z_ref)]
    assert near(got, fuse_locked(*wide, wide[1], trust.double(), 0.8, 1.0, VP))
    assert not near(got, fuse_locked(*wide, wide[1], trust.double(), 0.799, 1.0, VP)), "control: the weight"
    assert torch.equal(got[..., 0], compose(z, n, VP)[..., 0]), "to the bit where the weight is 0"
    fresh = latent(shape, 3)
    assert near(
        fuse_locked(z, n, z_ref, fresh, trust, 0.8, 0.0, VP),
        fuse_locked(*wide, fresh.double(), trust.double(), 0.8, 0.0, VP),
    )


def both(settings, frames):
    """What the exit gives for frames (x0, x0_ref, trust), by the kernel and in float64."""
    here, wide = Anchor(settings), Anchor(settings)
    return [
        (here.fuse(*frame, 0.8), wide.fuse(*(x.double() for x in frame), 0.8)) for frame in frames
    ]  # both in the order of the frames: the anchor remembers


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] == 1])
@pytest.mark.parametrize(
    "settings",
    [AnchorSettings(), AnchorSettings(exit=0.6, rate=0.7), AnchorSettings(drift=0.01), AnchorSettings(coverage=0.9)],
    ids=["as it is", "other rates", "drifting", "covered"],
)
def test_the_exit_is_that_of_torch_from_frame_to_frame(shape, settings):
    frames = [(latent(shape, k, offset=3.0), latent(shape, 9 + k, 0.5 + 0.3 * k, 3.0), map_of(shape)) for k in range(4)]
    for got, wanted in both(settings, frames):
        assert near(got, wanted)
    other = settings.model_copy(update={"exit": settings.exit * 0.9})
    got, wanted = (both(given, frames)[-1] for given in (settings, other))
    assert not near(got[0], wanted[1]), "control: a little less of it"


def test_the_exit_without_a_lock_is_plain_fusion():
    shape = SHAPES[2]
    x0, x0_ref, trust = latent(shape, 0), latent(shape, 1), map_of(shape)
    got = Anchor(AnchorSettings(exit=0)).fuse(x0, x0_ref, trust, 0.8)
    assert torch.equal(got, fuse(x0, None, x0_ref, None, trust * 0.8, 0.0, CLEAN))
    assert not near(Anchor(AnchorSettings()).fuse(x0, x0_ref, trust, 0.8), got.double()), "the control"


def test_what_is_not_trusted_passes_the_exit_to_the_bit():
    shape = SHAPES[0]
    x0, x0_ref, trust = latent(shape, 0), latent(shape, 1, 0.5), map_of(shape)
    out = Anchor(AnchorSettings()).fuse(x0, x0_ref, trust, 0.8)
    assert torch.equal(out[..., 0], x0[..., 0]) and not torch.equal(out[..., 1], x0[..., 1])


def test_sums_are_exact_for_a_large_latent_far_from_zero():
    shape = (1, 1, 256, 256)
    x0, x0_ref, trust = latent(shape, 0, 0.1, 50.0), latent(shape, 1, 0.05, 50.0), map_of(shape)
    [(got, wanted)] = both(AnchorSettings(), [(x0, x0_ref, trust)])
    assert near(got, wanted)
    m = (trust.double() / trust.sum()).float()
    at_once = (m * x0 * x0).sum() - (m * x0).sum() ** 2
    apart = (m * (x0 - (m * x0).sum()) ** 2).sum()
    assert abs(at_once / apart - 1) > 0.01, "control: a deviation made of sums of squares"


@pytest.mark.parametrize("wide", [False, True], ids=["the kernel", "torch"])
def test_what_is_no_number_leaves_with_its_frame(wide):
    dtype = torch.float64 if wide else torch.float32
    anchor, shape = Anchor(AnchorSettings()), (1, 3, 24, 32)
    x0, x0_ref, trust = (x.to(dtype) for x in (latent(shape, 0), latent(shape, 1), map_of(shape)))
    broken = x0.clone()
    broken[0, 1, 12, 12] = math.nan
    for z in (broken, x0_ref):
        locked = fuse_locked(x0, x0, z, x0, trust, 0.8, 1.0, VP)
        assert bool(locked[:, ::2].isfinite().all())
    anchor.fuse(x0, x0_ref, trust, 0.8)
    assert bool(anchor.fuse(broken, x0_ref, trust, 0.8)[:, 1].isnan().any())
    assert bool(anchor.fuse(x0, x0_ref, trust, 0.8).isfinite().all())
