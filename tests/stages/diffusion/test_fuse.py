"""Exit fusion: the past where it is trusted, the present bit for bit where it is not."""

import pytest
import torch

from warpfuse.stages.diffusion.fuse import Fuse, fusion_weight
from warpfuse.stages.diffusion.settings import W_MAX, FuseSettings, MomentLockSettings
from warpfuse.stages.frame import Frame, Latent, Stamp


def frames():
    now, past = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
    trust = torch.ones(1, 1, 6, 6)
    trust[..., :2] = 0
    trust[..., 4:] = 0.5
    return Latent(Stamp(3, 0), now), Latent(Stamp(3, 0), past, trust)


def test_the_share_of_the_past_is_weight_times_trust():
    now, past = frames()
    out = Fuse(FuseSettings(weight=0.8, anchor=MomentLockSettings(exit=0)))(now, past).z
    assert torch.equal(out[..., :2], now.z[..., :2])
    assert torch.allclose(out[..., 2:4], 0.8 * past.z[..., 2:4] + 0.2 * now.z[..., 2:4], atol=1e-6)
    assert torch.allclose(out[..., 4:], 0.4 * past.z[..., 4:] + 0.6 * now.z[..., 4:], atol=1e-6)


def test_without_a_reference_or_without_exit_the_prediction_passes():
    now, past = frames()
    assert torch.equal(Fuse(FuseSettings())(now, Frame(now.stamp)).z, now.z)
    assert torch.equal(Fuse(FuseSettings(exit=0))(now, past).z, now.z)


def test_no_weight_lets_an_error_stay_for_ever():
    trust = torch.ones(1, 1, 2, 2)
    assert fusion_weight(FuseSettings(weight=1.0), trust).max().item() <= W_MAX < 1


def test_new_weights_hold_from_the_next_call():
    now, past = frames()
    fuse = Fuse(FuseSettings(weight=0.8))
    fuse.update(FuseSettings(weight=0.0))
    assert torch.equal(fuse(now, past).z, now.z)


def test_with_the_exit_lock_what_is_fused_has_the_contrast_of_the_prediction():
    """And where nothing is trusted it is the prediction, to the bit."""
    generator = torch.Generator().manual_seed(0)
    x0, x0_ref = (torch.randn(1, 2, 24, 32, generator=generator) for _ in range(2))
    trust = torch.ones(1, 1, 24, 32)
    trust[..., :8] = 0
    now, past = Latent(Stamp(0, 0), x0), Latent(Stamp(0, 0), x0_ref, trust)
    found = {
        exit: Fuse(FuseSettings(weight=0.5, anchor=MomentLockSettings(exit=exit)))(now, past).z for exit in (0.0, 1.0)
    }
    contrast = {exit: float(z[..., 8:].std() / x0[..., 8:].std()) for exit, z in found.items()}
    assert contrast[1.0] == pytest.approx(1, abs=0.05) and contrast[0.0] < 0.8, "the control: it fades"
    assert torch.equal(found[1.0][..., :8], x0[..., :8])
