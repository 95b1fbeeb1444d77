"""Every solver's order, measured on Gaussian data, where the ODE's solution is known."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from support.driving import Gaussian, drive, normal

from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import CLEAN, flow_level, karras_levels, level_at, levels, steps_for
from warpfuse.stages.solvers.solver import keep

TABLE = levels()
DATA = Gaussian()
STEPS = (16, 32, 64)


def ways(space, steps):
    """steps + 1 levels over the same stretch, whatever their number."""
    if space == "vp":
        return (*steps_for(partial(level_at, TABLE), 1.0, steps, 950.0, 50.0), level_at(TABLE, 50.0))
    if space == "flow":
        return (*steps_for(flow_level, 1.0, steps, 950.0, 50.0), flow_level(50.0))
    return karras_levels(TABLE, steps + 1, 950.0, 50.0)


def slope(errors):
    """Mean order over the doublings of STEPS."""
    return math.log2(errors[0] / errors[-1]) / (len(errors) - 1)


def end_errors(solver, damage=lambda calls: calls):
    errors = []
    for steps in STEPS:
        *way, end = ways(solver.space, steps)
        x = DATA.std(way[0]) * normal(64, seed=1) + way[0].alpha * DATA.mu
        network, prediction = (DATA.velocity, "flow") if solver.space == "flow" else (DATA.says, "sample")
        got = drive(damage(solver.plan(way, end)), x, network, prediction=prediction)
        errors.append(float((got - DATA.solution(x, way[0], end)).abs().max()))
    return errors


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "rectified_flow"])
def test_the_error_falls_with_the_order_the_solver_states(name):
    solver = open_solver(name)
    assert slope(end_errors(solver)) == pytest.approx(solver.order, abs=0.15)


def test_control_heun_without_its_correction_is_of_order_1():
    def uncorrected(calls):
        return [
            replace(call, level=call.level, advance=keep, finished=True)
            for call in calls
            if call.level is not call.level_next
        ]

    assert slope(end_errors(open_solver("heun"), uncorrected)) == pytest.approx(1, abs=0.15)


def test_heun_asks_twice_a_step_and_once_for_the_last():
    plan = open_solver("heun").plan(karras_levels(TABLE, 3))
    assert [call.finished for call in plan] == [False, True, False, True, True]
    assert plan[1].level == plan[2].level == plan[0].level_next, "the corrected step ends where the next begins"


def spread(name, steps, **options):
    """Std of the end of a stochastic solver over x and every z, without sampling: it is linear in each of them."""
    solver = open_solver(name, **options)
    *way, end = ways(solver.space, steps)
    plan, centred = solver.plan(way, end), Gaussian(mu=0.0)
    noisy = sum(call.needs_noise for call in plan)
    basis = torch.eye(noisy + 1, dtype=torch.float64)  # column 0 moves x, column k the k-th z
    x = centred.std(way[0]) * basis[0]
    got = drive(plan, x, centred.says, list(basis[1:]), "sample")
    return float(got.norm()), centred.std(end)


@pytest.mark.parametrize("name, options", [("euler_ancestral", {}), ("ddim", {"eta": 1.0}), ("ddim", {"eta": 0.5})])
def test_a_stochastic_solver_has_its_order_in_distribution(name, options):
    errors = [abs(got - true) for got, true in (spread(name, steps, **options) for steps in STEPS)]
    assert slope(errors) == pytest.approx(open_solver(name, **options).order, abs=0.15)


@pytest.mark.parametrize("name", ["lcm", "turbo"])
def test_a_jumping_solver_is_exact_for_a_network_that_knows_the_end_and_gains_nothing_from_steps(name):
    def jumps(x, level):
        return DATA.solution(x, level, CLEAN)

    solver, n = open_solver(name), 100_000
    found = {}
    for steps, network in ((1, jumps), (4, jumps), (1, DATA.says), (4, DATA.says)):
        way = steps_for(partial(level_at, TABLE), 1.0, steps)
        x = DATA.std(way[0]) * normal(n, seed=1) + way[0].alpha * DATA.mu
        got = drive(solver.plan(way), x, network, [normal(n, seed=2 + k) for k in range(steps)], "sample")
        found[steps, network] = abs(float(got.std()) / DATA.s - 1)
    assert solver.order == 0
    assert max(found[1, jumps], found[4, jumps]) < 4 / math.sqrt(2 * n)
    assert min(found[1, DATA.says], found[4, DATA.says]) > 0.1  # the control: a network that was not distilled
