import math
from functools import partial
from itertools import pairwise

import pytest

from warpfuse.stages.solvers.levels import (
    SCHEDULES,
    Level,
    flow_level,
    karras_levels,
    level_at,
    levels,
    steps_for,
    timestep_at,
    variance_exploding,
    variance_preserving,
    zero_terminal,
)


def test_stable_diffusions_levels_are_the_published_ones():
    table = levels("scaled_linear", 0.00085, 0.012, 1000)
    assert len(table) == 1000
    assert table[0].alpha ** 2 == pytest.approx(1 - 0.00085, abs=1e-12)
    assert table[999].alpha == pytest.approx(0.0683, abs=1e-4)
    assert table[999].sigma / table[999].alpha == pytest.approx(14.6146, abs=1e-3)


def test_linear_levels_multiply_the_betas():
    table = levels("linear", 0.1, 0.3, 3)
    assert [level.alpha**2 for level in table] == pytest.approx([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])


def test_cosine_levels_follow_the_cosine():
    table = levels("cosine", train_timesteps=1000)

    def f(t):
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (0, 100, 500, 900):
        assert table[t].alpha ** 2 == pytest.approx(f(t + 1) / f(0), rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_level_preserves_variance_and_noise_rises(schedule):
    table = levels(schedule)
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=1e-12) for level in table)
    assert all(a.sigma <= b.sigma and a.alpha > b.alpha for a, b in pairwise(table))


def test_between_integers_the_log_snr_is_linear():
    table = levels()
    low, between, high = table[500], level_at(table, 500.25), table[501]

    def log_snr(level):
        return 2 * math.log(level.alpha / level.sigma)

    assert log_snr(between) == pytest.approx(0.75 * log_snr(low) + 0.25 * log_snr(high), abs=1e-12)
    assert between.alpha**2 + between.sigma**2 == pytest.approx(1, abs=1e-12)
    assert between.timestep == 500.25
    assert level_at(table, 500) is low


def test_rectified_flow_is_a_straight_line_and_the_shift_bends_it():
    assert flow_level(250) == Level(0.75, 0.25, 250.0)
    assert flow_level(0) == Level(1.0, 0.0, 0.0)
    assert flow_level(1000, shift=3.0) == Level(0.0, 1.0, 1000.0)
    assert flow_level(500, shift=3.0).sigma == pytest.approx(0.75)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_steps_descend_evenly_from_the_top(steps):
    found = steps_for(partial(level_at, levels()), 1.0, steps)
    assert [level.timestep for level in found] == pytest.approx([999 * (steps - k) / steps for k in range(steps)])
    assert all(a.sigma > b.sigma for a, b in pairwise(found))


def test_strength_and_floor_say_where_steps_begin_and_end():
    found = steps_for(flow_level, 0.5, 2, top=900, floor=100)
    assert [level.timestep for level in found] == pytest.approx([500, 300])
    assert [level.timestep for level in steps_for(flow_level, 0.0, 2, top=900, floor=100)] == [100, 100]


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="scaled_linear, linear, cosine"):
        levels("karras")
    for betas in ((0.0, 0.1), (0.2, 0.1), (0.1, 1.0)):
        with pytest.raises(ValueError, match="beta_start"):
            levels("linear", *betas)
    for timestep in (-1, 999.5, math.nan):
        with pytest.raises(ValueError, match="timestep"):
            level_at(levels(), timestep)
    with pytest.raises(ValueError, match="timestep"):
        flow_level(1001)
    for strength, steps, top, floor in ((1.1, 1, 999, 0), (0.5, 0, 999, 0), (0.5, 1, 100, 200)):
        with pytest.raises(ValueError, match="steps_for"):
            steps_for(flow_level, strength, steps, top, floor)


def test_sigma_space_and_back_is_the_same_level():
    for level in (levels()[10], level_at(levels(), 601.5), flow_level(400)):
        there = variance_exploding(level)
        assert there.alpha == 1 and there.sigma == pytest.approx(level.sigma / level.alpha)
        back = variance_preserving(there)
        assert back.alpha**2 + back.sigma**2 == pytest.approx(1, abs=1e-12)
        assert back.sigma / back.alpha == pytest.approx(there.sigma, rel=1e-12)
        assert back.timestep == level.timestep
    with pytest.raises(ValueError, match="alpha > 0"):
        variance_exploding(flow_level(1000))


@pytest.mark.parametrize("timestep", [0, 0.25, 17, 500.5, 998.75, 999])
def test_the_timestep_of_a_ratio_is_the_one_whose_level_has_it(timestep):
    level = level_at(levels(), timestep)
    assert timestep_at(levels(), level.sigma / level.alpha) == pytest.approx(timestep, abs=1e-9)


def test_a_ratio_outside_the_table_is_told_its_nearest_end():
    assert timestep_at(levels(), 1e-6) == 0 and timestep_at(levels(), 80.0) == 999
    assert timestep_at(zero_terminal(levels()), 1e9) == 998


def test_karras_levels_are_evenly_spaced_in_the_seventh_root():
    found = karras_levels(levels(), 5, 999, 100)
    assert found[0].sigma == pytest.approx(14.6146, abs=1e-3) and found[0].timestep == 999
    assert found[-1].timestep == pytest.approx(100)
    roots = [level.sigma ** (1 / 7) for level in found]
    assert [b - a for a, b in pairwise(roots)] == pytest.approx([roots[1] - roots[0]] * 4)
    assert all(level.alpha == 1 and level_at(levels(), level.timestep) for level in found)
    (only,) = karras_levels(levels(), 1)
    assert only.timestep == 999
    assert karras_levels(levels(), 2, 999, 100, of=5) == found[-2:]
    for bottom in range(100):
        assert karras_levels(levels(), 4, 999, bottom)[-1].sigma >= variance_exploding(levels()[bottom]).sigma


def test_zero_terminal_leaves_the_first_level_and_empties_the_last():
    before, after = levels(), zero_terminal(levels())
    assert after[0].alpha == pytest.approx(before[0].alpha, abs=1e-12)
    assert after[-1] == Level(0.0, 1.0, 999.0)
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=1e-12) for level in after)
    assert all(a.alpha > b.alpha for a, b in pairwise(after))
    assert level_at(after, 999) is after[-1]
    with pytest.raises(ValueError, match="terminal"):
        level_at(after, 998.5)


def test_karras_levels_out_of_range_are_refused():
    for figures in ((0, 999, 0, 7), (2, 100, 200, 7), (2, 999, 0, 0), (4, 999, 0, 7, 3)):
        with pytest.raises(ValueError, match="karras_levels"):
            karras_levels(levels(), *figures)
