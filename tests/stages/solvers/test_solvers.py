"""Laws of every solver, and how one is found."""

import math
from functools import partial

import pytest
import torch
from support.driving import drive, normal

from warpfuse.stages.solvers import SolverError, open_solver, solver_names
from warpfuse.stages.solvers.levels import (
    CLEAN,
    Level,
    flow_level,
    karras_levels,
    level_at,
    levels,
    steps_for,
    variance_exploding,
)
from warpfuse.stages.solvers.network import network_input, split
from warpfuse.stages.solvers.pair import compose

TABLE = levels()
VP = partial(level_at, TABLE)
NAMES = ("ddim", "euler", "euler_ancestral", "heun", "lcm", "rectified_flow", "turbo")
N = 100_000
TOLERANCE = 4 / math.sqrt(2 * N)


def level_of(space):
    return {"vp": VP, "ve": lambda t: variance_exploding(VP(t)), "flow": flow_level}[space]


def wavy(x, level):
    """A bounded network that is not linear and looks at its timestep."""
    return torch.tanh(1.3 * x + level.timestep / 1000) + 0.1 * x.roll(1, -1)


def test_a_file_is_a_solver():
    assert solver_names() == sorted(NAMES)
    assert all(open_solver(name).name == name for name in NAMES)
    assert {name: open_solver(name).order for name in NAMES if open_solver(name).order != 1} == {
        "heun": 2,
        "lcm": 0,
        "turbo": 0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_last_step_returns_x0(name):
    solver = open_solver(name, **({"eta": 1.0} if name == "ddim" else {}))
    level = level_of(solver.space)(700)
    (call,) = solver.plan([level])
    x, x0, n = normal(1, 4, 8, 8), normal(1, 4, 8, 8, seed=1), normal(1, 4, 8, 8, seed=2)
    got, n_next, memory = call.advance(x, x0, n, None, ())
    assert not call.needs_noise and call.finished and memory == ()
    assert (compose(got, n_next, call.level_next) - got).abs().max() == 0
    assert (got - x0).abs().max() < (1e-6 if name == "lcm" else 1e-15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_calls_are_pure_and_keep_dtype_and_chain(name, dtype):
    solver = open_solver(name)
    plan = solver.plan(steps_for(level_of(solver.space), 1.0, 3, 900.0, 100.0))
    x, x0, n, z = (normal(1, 4, 8, 8, seed=k).to(dtype) for k in range(4))
    before = [tensor.clone() for tensor in (x, x0, n, z)]
    memory = ()
    for call, following in zip(plan, (*plan[1:], None), strict=True):
        a = call.advance(x, x0, n, z, memory)
        b = call.advance(x, x0, n, z, memory)
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[0].dtype == a[1].dtype == dtype
        memory = a[2]
        assert (memory == ()) == call.finished, "a finished step leaves nothing behind"
        assert following is None or following.level == call.level_next
    assert all(torch.equal(tensor, was) for tensor, was in zip((x, x0, n, z), before, strict=True))
    assert plan[-1].level_next == CLEAN


@pytest.mark.parametrize("name, options", [("euler_ancestral", {}), ("ddim", {"eta": 1.0}), ("ddim", {"eta": 0.5})])
def test_fresh_noise_keeps_the_noise_at_its_level(name, options):
    solver, mu, seen = open_solver(name, **options), 0.3, []
    plan = solver.plan(steps_for(level_of(solver.space), 1.0, 4))
    x = compose(torch.full((N,), mu, dtype=torch.float64), normal(N, seed=1), plan[0].level)
    noises = [normal(N, seed=2 + k) for k in range(4)]
    drive(plan, x, lambda x, level: torch.full_like(x, mu), noises, "sample", seen)
    for call, (x, _, n) in zip(plan[:-1], seen[:-1], strict=True):
        assert abs(float(n.std()) - 1) < TOLERANCE
        assert abs(float((x - call.level_next.alpha * mu).std()) / call.level_next.sigma - 1) < TOLERANCE
    a, b = plan[0].level, plan[0].level_next
    k = (options.get("eta", 1.0)) * math.sqrt(1 - (b.sigma * a.alpha / (b.alpha * a.sigma)) ** 2)
    added = normal(N, seed=1) + k * noises[0]  # the control: fresh noise on top of all of the old
    assert float(added.std()) > 1.05


def test_ddim_is_euler_in_sigma_space_and_ancestral_is_ddim_at_eta_1():
    vp = steps_for(VP, 1.0, 8)
    ve = [variance_exploding(level) for level in vp]
    x, noises = normal(1, 4, 8, 8, seed=1), [normal(1, 4, 8, 8, seed=2 + k) for k in range(8)]
    for a, b, options in (("ddim", "euler", {}), ("ddim", "euler_ancestral", {"eta": 1.0})):
        for steps in range(1, 9):
            end_vp, end_ve = (CLEAN, CLEAN) if steps == 8 else (vp[steps], ve[steps])
            x_vp = drive(open_solver(a, **options).plan(vp[:steps], end_vp), x, wavy, noises)
            x_ve = drive(open_solver(b).plan(ve[:steps], end_ve), x / vp[0].alpha, wavy, noises)
            assert (x_ve - x_vp / end_vp.alpha).abs().max() < 1e-5 * x_ve.abs().max(), (a, b, steps)
    unscaled = drive(open_solver("euler").plan(ve), x, wavy)  # the control: x not divided by alpha
    assert (unscaled - drive(open_solver("ddim").plan(vp), x, wavy)).abs().max() > 0.1


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
def test_the_pair_is_the_same_in_both_spaces(prediction):
    vp = VP(601)
    ve = variance_exploding(vp)
    x, output = normal(2, 4, 8, 8, seed=1), normal(2, 4, 8, 8, seed=2)
    for a, b in zip(split(x, output, vp, prediction), split(x / vp.alpha, output, ve, prediction), strict=True):
        assert (a - b).abs().max() < 1e-12 * a.abs().max()
    assert (network_input(x / vp.alpha, ve) - x).abs().max() < 1e-14
    assert network_input(x, vp) is x and network_input(x, flow_level(300)).equal(x)
    assert network_input(x.half(), ve).dtype == torch.float16


def test_lcm_is_its_formula():
    first, second = VP(999), VP(249)
    plan = open_solver("lcm").plan([first, second])
    x, z = normal(1, 4, 8, 8, seed=1), normal(1, 4, 8, 8, seed=2)
    e = wavy(x, first)
    s = 10 * 999
    x0 = (x - first.sigma * e) / first.alpha
    x0 = s / math.sqrt(s**2 + 0.25) * x0 + 0.25 / (s**2 + 0.25) * x
    (got,) = [drive(plan[:1], x, wavy, [z])]
    assert (got - (second.alpha * x0 + second.sigma * z)).abs().max() < 1e-12
    zero, one = Level(VP(0).alpha, VP(0).sigma, 0.0), normal(1, 4, 8, 8, seed=3)
    (call,) = open_solver("lcm").plan([zero])
    assert torch.equal(call.advance(one, torch.zeros_like(one), z, None, ())[0], one), (
        "at timestep 0 it is the identity"
    )


def test_heun_of_equal_directions_is_euler():
    plan = open_solver("heun").plan([Level(1.0, 4.0, 800.0)], Level(1.0, 1.0, 400.0))
    x0, n = normal(1, 4, 8, 8, seed=1), normal(1, 4, 8, 8, seed=2)
    got = drive(plan, compose(x0, n, plan[0].level), lambda x, level: n)
    assert (got - compose(x0, n, plan[0].level_next)).abs().max() < 1e-12


def test_heuns_pair_lies_on_the_chord_of_its_step():
    seen, levels_ = [], karras_levels(TABLE, 3, 900, 200)
    x = levels_[0].sigma * normal(1, 4, 8, 8)
    drive(open_solver("heun").plan(levels_[:1], levels_[1]), x, wavy, seen=seen)
    ((x_next, x0, n),) = seen
    assert (compose(x0, n, levels_[0]) - x).abs().max() < 1e-12
    assert (compose(x0, n, levels_[1]) - x_next).abs().max() < 1e-12


def test_what_does_not_fit_is_refused_with_the_remedy():
    with pytest.raises(SolverError, match="Did you mean 'heun'"):
        open_solver("huen")
    with pytest.raises(SolverError, match="its options are eta"):
        open_solver("ddim", eat=1.0)
    with pytest.raises(SolverError, match="it has none"):
        open_solver("euler", eta=1.0)
    for name, options in (("ddim", {"eta": 1.5}), ("ddim", {"eta": math.nan}), ("lcm", {"timestep_scaling": 0.0})):
        with pytest.raises(SolverError, match="must be"):
            open_solver(name, **options)
    for name, level in (("ddim", flow_level(500)), ("euler", VP(500)), ("rectified_flow", VP(500))):
        with pytest.raises(SolverError, match="needs levels with"):
            open_solver(name).plan([level])
    with pytest.raises(SolverError, match="one level"):
        open_solver("ddim").plan([])
    with pytest.raises(SolverError, match="lower ones"):
        open_solver("ddim").plan([VP(300), VP(600)])
    x = normal(1, 4, 8, 8)
    for name in ("lcm", "turbo", "euler_ancestral"):
        solver = open_solver(name)
        call = solver.plan([level_of(solver.space)(t) for t in (900, 300)])[0]
        with pytest.raises(SolverError, match="needs noise z"):
            call.advance(x, x, x, None, ())
