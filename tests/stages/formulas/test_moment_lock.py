"""The locks on what is fed back: what they hold, and what happens without them."""

import pytest
import torch

from warpfuse.stages.formulas.moment_lock import lock_to_prediction, lock_to_source

SHAPE = (1, 3, 24, 32)
ALL = torch.ones(1, 1, 24, 32)


def latent(seed, gain=1.0, offset=0.0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) * gain + offset


class Lock:
    """The exit lock and the gain it remembers."""

    def __init__(self, exit=1.0, rate=0.2, coverage=0.2, drift=0.5):
        self.numbers, self.gain = (exit, rate, coverage, drift), None

    def __call__(self, x, x0, trust):
        out, self.gain = lock_to_prediction(x, x0, trust, self.gain, *self.numbers)
        return out


def inner(x):
    return x[..., 3:-3, 3:-3]


def test_the_entry_reference_has_the_sources_colours():
    z, z_ref = latent(0, offset=2.0), latent(1, offset=-5.0)
    locked = lock_to_source(z_ref, z)
    assert (locked.mean((2, 3)) - z.mean((2, 3))).abs().max() < 0.1
    assert (z_ref.mean((2, 3)) - z.mean((2, 3))).abs().min() > 6, "the control"


@pytest.mark.parametrize("gain", [0.3, 1.0, 4.0])
def test_the_entry_reference_is_no_louder_than_the_source(gain):
    z, z_ref = latent(0), latent(1, gain)
    loudness = inner(lock_to_source(z_ref, z)).std() / inner(z).std()
    assert loudness < 1.1
    if gain > 1:
        assert inner(z_ref).std() > 3 * inner(z).std(), "the control"
        assert loudness > 0.9, "and not silenced"


def test_a_source_for_reference_is_left_as_it_is():
    z = latent(0)
    assert torch.allclose(lock_to_source(z, z), z, atol=1e-5)


def test_a_flat_source_takes_no_paint():
    """What grew texture on a still road: strokes fed in where the source has none."""
    assert torch.allclose(lock_to_source(latent(1), torch.full(SHAPE, 0.7)), torch.full(SHAPE, 0.7), atol=1e-4)


def run(lock, loss=0.8, weight=0.8, frames=80):
    """A still: the way round takes `loss` of the contrast; returns contrast at the end over that of the prediction."""
    x0 = latent(0, offset=3.0)
    shown = x0
    for _ in range(frames):
        mean = shown.mean((2, 3), keepdim=True)
        past = mean + loss * (shown - mean)
        shown = lock(weight * past + (1 - weight) * x0, x0, ALL)
    return (shown.std() / x0.std()).item(), (shown.mean() - x0.mean()).abs().item()


def test_contrast_lost_on_the_way_round_is_given_back():
    contrast, moved = run(Lock())
    assert contrast == pytest.approx(1, abs=0.02) and moved < 1e-3
    assert run(Lock(exit=0))[0] == pytest.approx(0.2 / (1 - 0.8 * 0.8), abs=0.02), "the control: it fades"


def test_contrast_won_on_the_way_round_is_taken_back():
    assert run(Lock(), loss=1.2)[0] == pytest.approx(1, abs=0.02)
    assert run(Lock(exit=0), loss=1.2)[0] > 2, "the control: it blows up"


def test_the_gain_moves_slowly():
    lock = Lock(rate=0.1)
    x0 = latent(0)
    lock(x0, x0, ALL)
    louder = lock(x0, 1.3 * x0, ALL)
    assert (louder.std() / x0.std()).item() == pytest.approx(1.03, abs=0.005)


def test_it_starts_anew_on_a_cut_on_low_coverage_and_on_drift():
    x0 = latent(0)
    corner = torch.zeros_like(ALL)
    corner[..., :4, :4] = 1

    def after(numbers, trust, gain):
        lock = Lock(**numbers)
        lock(x0, x0, ALL)
        lock(x0, gain * x0, trust)
        return (lock(x0, gain * x0, ALL).std() / x0.std()).item()

    slow = {"rate": 0.01, "drift": 10.0, "coverage": 0.2}
    assert after(slow, ALL, 1.5) < 1.05, "the control: it only creeps"
    assert after(slow, corner, 1.5) == pytest.approx(1.5, abs=0.02)
    assert after(slow, torch.zeros_like(ALL), 1.5) < 1.05, "after a cut nothing is known: no correction"
    assert after({"rate": 0.01, "drift": 0.3}, ALL, 1.5) == pytest.approx(1.5, abs=0.02)


def test_where_nothing_is_seen_nothing_breaks():
    out = Lock()(latent(0), latent(1), torch.zeros_like(ALL))
    assert torch.isfinite(out).all()


def test_what_is_no_number_leaves_with_the_frame_that_brought_it():
    lock, x0, broken = Lock(), latent(0), latent(1)
    broken[0, 1, 2, 2] = float("nan")
    lock(x0, x0, ALL)
    assert lock(broken, x0, ALL).isnan().any()
    assert torch.isfinite(lock(x0, x0, ALL)).all()


def test_what_is_not_trusted_passes_to_the_bit():
    x, trust = latent(0), ALL.clone()
    trust[..., :10] = 0
    out = Lock(rate=1.0)(x, 1.5 * latent(1), trust)
    assert torch.equal(out[..., :10], x[..., :10]) and not torch.equal(out[..., 10:], x[..., 10:])


def test_a_blend_of_strokes_that_do_not_meet_keeps_its_contrast():
    now, past = latent(0), latent(1)
    blend = 0.5 * now + 0.5 * past
    assert blend.std() < 0.75 * now.std(), "the control"
    assert Lock()(blend, now, ALL).std() == pytest.approx(now.std().item(), rel=0.02)
