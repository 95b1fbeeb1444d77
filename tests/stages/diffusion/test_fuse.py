"""Exit fusion: the past where it is trusted, the present bit for bit where it is not."""

import torch

from warpfuse.stages.diffusion.fuse import W_MAX, Fuse, FuseSettings, fusion_weight
from warpfuse.stages.diffusion.moment_lock import AnchorSettings
from warpfuse.stages.frame import Frame, Stamp


def frames():
    now, past = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
    trust = torch.ones(1, 1, 6, 6)
    trust[..., :2] = 0
    trust[..., 4:] = 0.5
    return Frame(Stamp(3, 0), {"latent": now}), Frame(Stamp(3, 0), {"latent": past, "trust": trust})


def test_the_share_of_the_past_is_weight_times_trust():
    now, past = frames()
    out = Fuse(FuseSettings(weight=0.8, anchor=AnchorSettings(exit=0)))(now, past)["latent"]
    assert torch.equal(out[..., :2], now["latent"][..., :2])
    assert torch.allclose(out[..., 2:4], 0.8 * past["latent"][..., 2:4] + 0.2 * now["latent"][..., 2:4], atol=1e-6)
    assert torch.allclose(out[..., 4:], 0.4 * past["latent"][..., 4:] + 0.6 * now["latent"][..., 4:], atol=1e-6)


def test_without_a_reference_or_without_exit_the_prediction_passes():
    now, past = frames()
    assert torch.equal(Fuse(FuseSettings())(now, Frame(now.stamp))["latent"], now["latent"])
    assert torch.equal(Fuse(FuseSettings(exit=0))(now, past)["latent"], now["latent"])


def test_no_weight_lets_an_error_stay_for_ever():
    trust = torch.ones(1, 1, 2, 2)
    assert fusion_weight(FuseSettings(weight=1.0), trust).max().item() <= W_MAX < 1


def test_new_weights_hold_from_the_next_call():
    now, past = frames()
    fuse = Fuse(FuseSettings(weight=0.8))
    fuse.update(FuseSettings(weight=0.0))
    assert torch.equal(fuse(now, past)["latent"], now["latent"])
