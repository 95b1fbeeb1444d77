"""AdaIN: the anchor's mean and contrast, channel by channel, as far as is asked for."""

import pytest
import torch

from warpfuse.stages.diffusion.adain import adain


def latent(seed, gain=1.0, offset=0.0):
    return gain * torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) + offset


def moments(x):
    return x.mean((2, 3)), x.std((2, 3), correction=0)


def test_at_weight_1_mean_and_contrast_are_the_anchors():
    x0, anchor = latent(1), latent(2, 0.4, 0.7)
    for found, wanted in zip(moments(adain(x0, anchor, 1.0)), moments(anchor), strict=True):
        assert (found - wanted).abs().max() < 1e-4
    assert (moments(x0)[0] - moments(anchor)[0]).abs().max() > 0.1, "the control: they were others"


def test_at_weight_0_nothing_changes_to_the_bit():
    x0, anchor = latent(1), latent(2, 0.4, 0.7)
    for weight in (0.0, torch.zeros(1, 1, 1, 1)):
        assert torch.equal(adain(x0, anchor, weight), x0)


def test_the_anchor_itself_is_left_as_it_is():
    x0 = latent(1, 3.0, -2.0)
    assert (adain(x0, x0, 1.0) - x0).abs().max() < 1e-5


@pytest.mark.parametrize("weight", [0.25, 0.5])
def test_a_weight_is_a_share_of_the_way(weight):
    x0, anchor = latent(1), latent(2, 0.4, 0.7)
    halfway = x0 + weight * (adain(x0, anchor, 1.0) - x0)
    assert torch.allclose(adain(x0, anchor, weight), halfway, atol=1e-6)


def test_a_channel_without_contrast_stays_finite():
    found = adain(torch.full((1, 4, 8, 8), 3.0), latent(2, 0.4, 0.7)[..., :8, :8], 1.0)
    assert found.isfinite().all()
