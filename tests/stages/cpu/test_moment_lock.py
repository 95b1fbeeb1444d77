"""The locks' loops say what the formulas say of the same in float64."""

import pytest
import torch

from warpfuse.stages import cpu, formulas
from warpfuse.stages.formulas import moment_lock

SHAPES = [(1, 32, 64, 64), (1, 4, 128, 160), (1, 4, 33, 47), (2, 4, 9, 5), (1, 3, 4, 3), (1, 2, 3, 40), (3, 2, 2, 2)]
ROUNDINGS = 16 * 2**-23


def latent(shape, seed, gain=1.0, offset=0.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * gain + offset


def near(got, wanted):
    return got.dtype == torch.float32 and bool((got - wanted).abs().max() <= ROUNDINGS * (1 + wanted.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_the_entry_lock_is_that_of_the_formula(shape, gain, monkeypatch):
    z, z_ref = latent(shape, 0, offset=2.0), latent(shape, 1, gain, -3.0)
    got = cpu.lock_to_source(z_ref, z)
    assert near(got, formulas.lock_to_source(z_ref.double(), z.double()))
    monkeypatch.setattr(moment_lock, "RADIUS", moment_lock.RADIUS + 1)
    assert not near(got, formulas.lock_to_source(z_ref.double(), z.double())), "control: another radius"


def exits(numbers, frames):
    """What both forms give for frames (x, x0, trust), in their order: each remembers its gain."""
    gain = gain_wide = None
    found = []
    for frame in frames:
        got, gain = cpu.lock_to_prediction(*frame, gain, *numbers)
        wanted, gain_wide = formulas.lock_to_prediction(*(x.double() for x in frame), gain_wide, *numbers)
        assert near(gain, gain_wide)
        found.append((got, wanted))
    return found


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] == 1])
@pytest.mark.parametrize(
    "numbers",
    [(1.0, 0.2, 0.2, 0.5), (0.6, 0.7, 0.2, 0.5), (1.0, 0.2, 0.2, 0.01), (1.0, 0.2, 0.9, 0.5)],
    ids=["as it is", "other rates", "drifting", "covered"],
)
def test_the_exit_lock_is_that_of_the_formula_from_frame_to_frame(shape, numbers):
    trust = torch.rand((1, 1, *shape[2:]), generator=torch.Generator().manual_seed(9))
    trust[..., :1] = 0
    frames = [(latent(shape, 9 + k, 0.5 + 0.3 * k, 3.0), latent(shape, k, offset=3.0), trust) for k in range(4)]
    for (x, _, _), (got, wanted) in zip(frames, exits(numbers, frames), strict=True):
        assert near(got, wanted) and torch.equal(got[..., :1], x[..., :1]), "to the bit where nothing is trusted"
    less = numbers[0] * 0.9, *numbers[1:]
    assert not near(exits(numbers, frames)[-1][0], exits(less, frames)[-1][1]), "control: a little less of it"


def test_a_gain_that_is_no_number_leaves_with_the_frame_that_brought_it():
    numbers, trust = (1.0, 0.2, 0.2, 0.5), torch.ones(1, 1, 8, 12)
    x0, broken = latent((1, 3, 8, 12), 0), latent((1, 3, 8, 12), 1)
    broken[0, 1, 2, 2] = float("nan")
    out, gain = cpu.lock_to_prediction(broken, x0, trust, None, *numbers)
    assert out.isnan().any(-1).any(-1).tolist() == [[False, True, False]]
    assert torch.isfinite(cpu.lock_to_prediction(x0, x0, trust, gain, *numbers)[0]).all()


def test_latents_that_lie_elsewhere_are_read_there():
    z, z_ref = latent((1, 3, 8, 12), 0), latent((1, 3, 8, 12), 1)
    wanted = cpu.lock_to_source(z_ref, z)
    turned = z.mT.contiguous().mT
    assert not turned.is_contiguous() and torch.equal(cpu.lock_to_source(z_ref, turned), wanted)
    half = cpu.lock_to_source(z_ref.half(), z.half())
    assert half.dtype == torch.float16 and (half.float() - wanted).abs().max() < 0.01


def test_what_is_no_number_stays_in_its_channel():
    z, z_ref = latent((1, 3, 8, 12), 0), latent((1, 3, 8, 12), 1)
    z[0, 1, 4, 4] = float("nan")
    broken = cpu.lock_to_source(z_ref, z).isnan().any(-1).any(-1)
    assert broken.tolist() == [[False, True, False]]
