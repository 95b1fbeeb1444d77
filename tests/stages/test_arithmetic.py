"""One set of functions in two forms: the same names, the same arguments, and a form that no device is strange to."""

import inspect

import pytest
import torch

from warpfuse.stages import cpu, formulas
from warpfuse.stages.arithmetic import Arithmetic, arithmetic
from warpfuse.stages.formulas.composite import shares_of
from warpfuse.stages.motion.settings import ConfidenceSettings

NAMES = [name for name, one in vars(Arithmetic).items() if inspect.isfunction(one) and not name.startswith("_")]


def arguments(function):
    return [(one.name, one.default, one.annotation) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_have_every_function_with_the_same_arguments(name):
    promised = arguments(getattr(Arithmetic, name))[1:]  # but for self
    assert promised and arguments(getattr(cpu, name)) == arguments(getattr(formulas, name)) == promised


def test_no_form_has_more():
    assert sorted(NAMES) == sorted(cpu.__all__) == sorted(formulas.__all__)


def test_a_cpu_has_its_own_form_and_every_other_device_the_formulas():
    assert arithmetic("cpu") is cpu and arithmetic(torch.device("cpu")) is cpu
    assert arithmetic("cuda:0") is formulas and arithmetic("meta") is formulas


def test_formulas_run_where_their_tensors_lie():
    """On the device that computes nothing, what touched a CPU would fail or come back from there."""
    rgb, flow, mask = (torch.empty(1, c, 32, 48, device="meta") for c in (3, 2, 1))
    table = torch.empty(33, 33, 33, 3, device="meta")
    limits = ConfidenceSettings().limits
    found = {
        "warp": formulas.warp(rgb, flow),
        "warp_picture": formulas.warp_picture(rgb, flow),
        "resize_flow": formulas.resize_flow(flow, (16, 24)),
        "seen": formulas.seen(rgb, (16, 24), 2)[0],
        "resized": formulas.resized(rgb, (10, 20)),
        "confidence": formulas.confidence(flow, flow, rgb, rgb, limits)[0],
        "grown": formulas.grown(mask, 2, 2),
        "lock_to_prediction": formulas.lock_to_prediction(rgb, rgb, mask, None, 1.0, 0.2, 0.2, 0.5)[0],
        "lock_to_source": formulas.lock_to_source(rgb, rgb),
        "composed": formulas.composed(rgb, mask, table, shares_of((0.1, 0.2, 0.3), 1.0, 1.0).to("meta")),
        "as_sharp_as": formulas.as_sharp_as(mask, mask),
        "bytes_of": formulas.bytes_of(rgb),
    }
    assert {name: x.device.type for name, x in found.items()} == dict.fromkeys(NAMES, "meta")
