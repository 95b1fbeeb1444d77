"""The kernels where they can run: always on the simulated card, and on a real one where there is one."""

import pytest
import torch
from support.card import card
from support.card.kernels import COMPILER

from warpfuse.stages.arithmetic import arithmetic

CARD = "cuda:0"


class Kernels:
    """The functions of `stages.cuda`, for tensors of the host: these are copied there and back."""

    def __init__(self, functions):
        self._functions = functions

    def __getattr__(self, name):
        function = getattr(self._functions, name)
        return lambda *args: moved(function(*moved(args, CARD)), "cpu")


def moved(x, device):
    if hasattr(x, "_fields"):
        return type(x)(*(moved(one, device) for one in x))
    if isinstance(x, tuple):
        return tuple(moved(one, device) for one in x)
    return x.to(device) if hasattr(x, "to") else x


REAL = [pytest.param("real", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []


@pytest.fixture(params=["simulated", *REAL])
def ops(request):
    if request.param == "real":
        yield Kernels(arithmetic(CARD))
        return
    if COMPILER is None:
        pytest.skip("no C compiler: the simulated card compiles the kernels with one")
    with card() as sim:
        yield Kernels(arithmetic(CARD))
    assert not sim.races and not [wait for wait in sim.waits if wait[1]], "a race, or the host waits for the card"
