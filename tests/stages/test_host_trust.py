"""What is summed in place on a CPU is what the formulas of `trust` say."""

import pytest
import torch
from fields import texture

from warpfuse.stages import host_trust
from warpfuse.stages.trust import TrustSettings, colour_histogram, consistent, inside, photometric, trust


def scene(seed=0, h=40, w=56):
    """Flow and its inverse that agree here and not there, two pictures likewise."""
    generator = torch.Generator().manual_seed(seed)
    flow = torch.randn(1, 2, h, w, generator=generator) * 4
    back = -flow + torch.randn(1, 2, h, w, generator=generator) * 0.6
    cur = texture(h, w, seed)
    return flow, back, cur, (cur + torch.randn(1, 3, h, w, generator=generator) * 0.12).clamp(0, 1)


def planes(*tensors):
    return [tensor[0].numpy() for tensor in tensors]


def formula(flow, back, cur, prev, settings):
    m = inside(flow) * photometric(cur, prev, settings.photometric, settings.softness)
    if settings.check == "off":
        return m
    return m * consistent(flow, back, settings.check, settings.slope, settings.offset)


@pytest.mark.parametrize("softness", [0.0, 0.5])
@pytest.mark.parametrize("check", ["squared", "norm", "off"])
def test_belief_is_that_of_the_formulas(check, softness):
    settings = TrustSettings(check=check, softness=softness)
    fields = scene()
    wanted = formula(*fields, settings)
    got = torch.from_numpy(host_trust.believed(*planes(*fields), settings))
    assert 0.1 < wanted.mean() < 0.9, "both kinds of pixels are there"
    assert (got - wanted[0, 0]).abs().max() < 1e-4
    if check != "off":
        other = formula(*fields, settings.model_copy(update={"offset": settings.offset * 2}))
        assert (got - other[0, 0]).abs().max() > 0.1, "the control: a pixel that only another tolerance believes"


def test_nothing_that_comes_in_is_written():
    fields = scene()
    before = [field.clone() for field in fields]
    trust(*fields, TrustSettings())
    assert all(torch.equal(a, b) for a, b in zip(fields, before, strict=True))


def test_each_picture_of_a_batch_is_judged_by_itself():
    one, two = scene(0), scene(1)
    settings = TrustSettings(dilate_px=0)
    both = trust(*(torch.cat(pair) for pair in zip(one, two, strict=True)), settings)
    for i, fields in enumerate((one, two)):
        m, coverage = trust(*fields, settings)
        assert torch.equal(both[0][i], m[0]) and both[1][i] == coverage[0]
    assert not torch.equal(both[0][0], both[0][1])


def test_shades_are_counted_as_they_are_binned():
    rgb = texture(40, 56, 3)
    rgb[..., 0, 0], rgb[..., 0, 1], rgb[..., 0, 2] = 0.0, 1.0, 0.5  # the ends, and an edge between two shades
    shade = (rgb[0] * 8).clamp(0, 7).to(torch.int64)
    wanted = torch.bincount((shade[0] * 64 + shade[1] * 8 + shade[2]).flatten(), minlength=512) / (40 * 56)
    assert torch.allclose(colour_histogram(rgb), wanted, atol=1e-7)
    assert not torch.allclose(colour_histogram(rgb.flip(1)), wanted, atol=1e-3), "the control: channels the other way"
