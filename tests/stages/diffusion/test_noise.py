"""The noise policies: whatever n_ref is taken, the level stays exact."""

from functools import partial

import pytest
import torch

from warpfuse.stages.diffusion.noise import FusedNoise, Noises, after_call, at_entry, in_window
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import Level, level_at, levels, variance_exploding
from warpfuse.stages.solvers.pair import fuse

CPU = torch.device("cpu")
SHAPE = torch.Size((1, 1, 256, 256))
TABLE = levels()
LOOSE = 4 / (2 * SHAPE.numel()) ** 0.5
SOLVERS = [
    ("ddim", {}),
    ("ddim", {"eta": 0.5}),
    ("ddim", {"eta": 1.0}),
    ("euler", {}),
    ("euler_ancestral", {}),
    ("lcm", {}),
    ("turbo", {}),
]
ZERO = torch.zeros(SHAPE)


def step(name, options, noises, seed=99):
    """The first call of a plan and its n', from a predicted n that is independent of every slot."""
    solver = open_solver(name, **options)
    of = partial(level_at, TABLE) if solver.space == "vp" else lambda t: variance_exploding(level_at(TABLE, t))
    call = solver.plan([of(800.0), of(400.0)])[0]
    n = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    x = call.level.sigma * n
    z = noises.slot(1, SHAPE) if call.needs_noise else None
    _, n_next, _ = call.advance(x, ZERO, n, z, ())
    return call, n_next


def level_of(call, n, n_ref, rho, weight):
    """std of what is left of the noise, over sigma'. x0 is 0 on both sides, but LCM's own skip part."""
    return (fuse(ZERO, n, ZERO, n_ref, weight, rho, call.level_next).std() / call.level_next.sigma).item()


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("policy", ["model", "slot", "fresh"])
@pytest.mark.parametrize("name, options", SOLVERS)
def test_the_level_is_exact_after_every_solver(name, options, policy, weight):
    noises = Noises(1, CPU)
    call, n = step(name, options, noises)
    n_ref, rho = after_call(policy, noises, 5, 1, call, n)
    assert level_of(call, n, n_ref, rho, weight) == pytest.approx(1, abs=1.5 * LOOSE)


@pytest.mark.parametrize(
    "name, options, wrong", [("lcm", {}, 1.366), ("turbo", {}, 1.366), ("ddim", {"eta": 1.0}, None)]
)
def test_a_slot_taken_for_uncorrelated_would_be_too_loud(name, options, wrong):
    """The control: where the solver made noisy with the slot's noise, rho is not 0."""
    noises = Noises(1, CPU)
    call, n = step(name, options, noises)
    found = level_of(call, n, noises.slot(1, SHAPE), 0.0, 0.5)
    assert found > 1.02 if wrong is None else found == pytest.approx(wrong, abs=0.01)


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("policy", ["model", "slot", "fresh"])
def test_the_level_is_exact_at_the_entry(policy, weight):
    noises, level = Noises(1, CPU), level_at(TABLE, 600.0)
    n_ref, rho = at_entry(policy, noises, 3, SHAPE)
    noise = fuse(ZERO, noises.slot(0, SHAPE), ZERO, n_ref, weight, rho, level)
    assert (noise.std() / level.sigma).item() == pytest.approx(1, abs=1.5 * LOOSE)


def test_slots_are_the_same_for_every_frame_and_fresh_ones_are_not():
    noises, again = Noises(1, CPU), Noises(1, CPU)
    assert torch.equal(noises.slot(2, SHAPE), again.slot(2, SHAPE)), "the seed decides"
    assert not torch.equal(noises.slot(2, SHAPE), Noises(2, CPU).slot(2, SHAPE))
    assert torch.equal(noises.fresh(7, 1, SHAPE), again.fresh(7, 1, SHAPE))
    drawn = [noises.slot(0, SHAPE), noises.slot(1, SHAPE), *(noises.fresh(seq, 1, SHAPE) for seq in range(3))]
    for i, a in enumerate(drawn):
        for b in drawn[i + 1 :]:
            assert abs((a * b).mean().item()) < LOOSE


def test_another_shape_draws_new_slots():
    noises = Noises(1, CPU)
    noises.slot(0, SHAPE)
    assert noises.slot(0, torch.Size((1, 4, 8, 8))).shape == (1, 4, 8, 8)


def test_no_noise_is_left_at_the_last_step():
    noises = Noises(1, CPU)
    call = open_solver("lcm").plan([level_at(TABLE, 800.0)])[0]
    assert after_call("fresh", noises, 0, 1, call, ZERO) == (None, 0.0)


def test_a_window_holds_its_ends():
    assert in_window((200, 400), Level(0.5, 0.5, 200.0)) and in_window((200, 400), Level(0.5, 0.5, 400.0))
    assert not in_window((200, 400), Level(0.5, 0.5, 401.0)) and not in_window((200, 400), Level(0.5, 0.5, 199.0))


def quarters(name, options, policies, tracked=True):
    """std of the noise of each quarter, after references were fused in one after the other, in each by its weight."""
    noises, weights = Noises(1, CPU), torch.tensor([0.0, 0.3, 0.5, 0.9]).repeat_interleave(64).expand(SHAPE)
    call, n = step(name, options, noises)
    noise = FusedNoise(call, n)
    for policy in policies:
        noise = noise if tracked else FusedNoise(call, noise.n)
        noise.take(policy, noises, 5, 1, weights, 1.0)
    return [noise.n[..., 64 * i : 64 * i + 64].std().item() for i in range(4)]


@pytest.mark.parametrize(
    "policies", [("slot", "slot"), ("fresh", "fresh"), ("slot", "fresh", "slot"), ("fresh", "model", "fresh")]
)
@pytest.mark.parametrize("name, options", SOLVERS)
def test_the_level_stays_exact_whatever_is_fused_in_after_one_another(name, options, policies):
    assert quarters(name, options, policies) == pytest.approx([1] * 4, abs=4 * LOOSE)


@pytest.mark.parametrize("policies", [("slot", "slot"), ("fresh", "fresh")])
def test_a_noise_taken_for_new_a_second_time_would_be_too_loud(policies):
    """The control: the same noise is in there already."""
    assert max(quarters("ddim", {}, policies, tracked=False)) > 1.05
