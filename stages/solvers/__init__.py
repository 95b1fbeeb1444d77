"""Solvers, which take a predicted pair (x0, n) to the next noise level. Each solver has a file.

A module of this folder, or behind an entry point of `warpfuse.solvers`, is a solver if it defines
`open(**options) -> Solver`. Its name is the solver's name. `solver.py` explains what a solver is, and why it plans its
network calls instead of making them.

| solver            | levels               | order | n' on the next level                      | x0'                   |
|-------------------|----------------------|-------|-------------------------------------------|-----------------------|
| `ddim`            | variance preserving  | 1     | sqrt(1 - k^2) n + k z, k = 0 at eta = 0   | x0                    |
| `euler`           | variance exploding   | 1     | n                                         | x0                    |
| `euler_ancestral` | variance exploding   | 1     | as ddim at eta = 1                        | x0                    |
| `heun`            | variance exploding   | 2     | mean n of two network calls               | chord of the two      |
| `lcm`             | variance preserving  | 0     | z                                         | c_out x0 + c_skip x   |
| `turbo`           | variance preserving  | 0     | z; one step needs none                    | x0                    |
| `rectified_flow`  | flow, alpha = 1 - t  | 1     | n                                         | x0                    |
"""

import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from types import ModuleType

from warpfuse.engine.registry import load_module, module_names
from warpfuse.stages.solvers.solver import Call, Solver, SolverError

__all__ = ["Call", "Solver", "SolverError", "open_solver", "solver_names"]


def solver_names() -> list[str]:
    """Names of all solvers."""
    return sorted(name for name, _ in _modules())


def open_solver(name: str, **options: float) -> Solver:
    """Open the solver called `name`.

    options  the solver's options, as a bundle gives them: `eta` of ddim, `timestep_scaling` of lcm

    Raises SolverError for an unknown solver or option, or a value out of range.
    """
    known: dict[str, ModuleType] = dict(_modules())
    if name not in known:
        near = get_close_matches(name, known, 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise SolverError(f"no solver is called {name!r}. Known are {', '.join(sorted(known))}.{meant}")
    build: Callable[..., Solver] = known[name].open
    takes = list(inspect.signature(build).parameters)
    for option in options:
        if option not in takes:
            has = f"its options are {', '.join(takes)}" if takes else "it has none"
            raise SolverError(f"solver {name!r} has no option {option!r}: {has}. Correct the bundle")
    return build(**options)


def _modules() -> list[tuple[str, ModuleType]]:
    package = sys.modules[__name__]
    found = ((name, load_module(package, name)) for name in module_names(package))
    return [(name, module) for name, module in found if hasattr(module, "open")]
