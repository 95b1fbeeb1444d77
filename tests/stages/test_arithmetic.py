"""One set of functions in three forms: the same names, the same arguments, and a form that no device is strange to."""

import inspect

import pytest
import torch
from support.card import card
from support.card.kernels import COMPILER

from warpfuse.stages import cpu, cuda, formulas
from warpfuse.stages.arithmetic import Arithmetic, arithmetic
from warpfuse.stages.formulas.composite import shares_of
from warpfuse.stages.formulas.confidence_mask import PictureColours
from warpfuse.stages.motion.settings import ConfidenceSettings

NAMES = [name for name, one in vars(Arithmetic).items() if inspect.isfunction(one) and not name.startswith("_")]


def arguments(function):
    return [(one.name, one.default, one.annotation) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [cpu, cuda, formulas])
def test_every_form_has_every_function_with_the_same_arguments(name, form):
    promised = arguments(getattr(Arithmetic, name))[1:]  # but for self
    assert promised and arguments(getattr(form, name)) == promised


def test_no_form_has_more():
    assert sorted(NAMES) == sorted(cpu.__all__) == sorted(formulas.__all__) == sorted(cuda.__all__)


def test_a_cpu_and_a_card_have_forms_of_their_own_and_every_other_device_the_formulas():
    assert arithmetic("cpu") is cpu and arithmetic(torch.device("cpu")) is cpu and arithmetic("meta") is formulas
    if not torch.cuda.is_available():
        assert arithmetic("cuda:0") is formulas, "there is no card"
    if COMPILER is not None:
        with card():
            assert arithmetic("cuda:0") is cuda and arithmetic("cpu") is cpu


def test_formulas_run_where_their_tensors_lie():
    """On the device that computes nothing, what touched a CPU would fail or come back from there."""
    rgb, flow, mask = (torch.empty(1, c, 32, 48, device="meta") for c in (3, 2, 1))
    table = torch.empty(33, 33, 33, 3, device="meta")
    settings = ConfidenceSettings()
    limits = settings.limits
    seen, gain = PictureColours(rgb, torch.empty(512, device="meta")), (None, 1.0, 0.2, 0.2, 0.5)
    found = {
        "warp": formulas.warp(rgb, flow),
        "warp_picture": formulas.warp_picture(rgb, flow),
        "resize_flow": formulas.resize_flow(flow, (16, 24)),
        "seen": formulas.seen(rgb, (16, 24), 2)[0],
        "resized": formulas.resized(rgb, (10, 20)),
        "confidence": formulas.confidence(flow, flow, rgb, rgb, limits)[0],
        "trusted": formulas.trusted(flow, flow, mask, seen, seen, limits, (2, 2), settings.cut),
        "reduce_to_latent": formulas.reduce_to_latent(mask, 8, 2.0),
        "colour_histogram": formulas.colour_histogram(rgb),
        "grown": formulas.grown(mask, 2, 2),
        "fuse_at_entry": formulas.fuse_at_entry(*(rgb,) * 4, mask, mask[0, 0, 0, 0], 0.0, 0.6, 0.8, 1.0, True),
        "fuse_at_exit": formulas.fuse_at_exit(rgb, rgb, mask, mask[0, 0, 0, 0], *gain)[0],
        "lock_to_prediction": formulas.lock_to_prediction(rgb, rgb, mask, *gain)[0],
        "lock_to_source": formulas.lock_to_source(rgb, rgb),
        "composed": formulas.composed(rgb, mask, table, shares_of((0.1, 0.2, 0.3), 1.0, 1.0).to("meta")),
        "cored": formulas.cored(rgb, rgb, mask, torch.empty(2, device="meta")),
        "fuse_lines": formulas.fuse_lines(mask, mask, mask, torch.empty(3, device="meta"), True),
        "as_sharp_as": formulas.as_sharp_as(mask, mask),
        "planes_of": formulas.planes_of(torch.empty(32, 48, 3, dtype=torch.uint8, device="meta")),
        "bytes_of": formulas.bytes_of(rgb),
    }
    assert {name: x.device.type for name, x in found.items()} == dict.fromkeys(NAMES, "meta")
