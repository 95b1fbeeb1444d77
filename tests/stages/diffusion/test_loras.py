"""Scales of live LoRAs: those asked for in the order of the bundle, and one line for what is not there."""

import pytest

from warpfuse.engine.bundle_parts import LiveLora
from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import BundleError
from warpfuse.stages.diffusion.loras import check_input, lora_scales
from warpfuse.stages.errors import LoraError

KNOWN = (LiveLora(name="ink", default=0.8, text=True), LiveLora(name="rain", default=-1.0))


def test_scales_are_in_the_order_of_the_bundle_and_default_where_none_is_asked_for():
    assert lora_scales({}, KNOWN) == (0.8, -1.0)
    assert lora_scales({"rain": 0}, KNOWN) == (0.8, 0.0)
    assert lora_scales({"rain": 2.0, "ink": 0.5}, KNOWN) == (0.5, 2.0)
    assert lora_scales({}, ()) == ()


@pytest.mark.parametrize(
    "asked, known, says",
    [
        ({"imk": 1.0}, KNOWN, r"no live LoRA called 'imk'; did you mean 'ink'\? This bundle has: ink, rain"),
        ({"snowfall": 1.0}, KNOWN, r"no live LoRA called 'snowfall'\. This bundle has: ink, rain"),
        ({"ink": 4.5}, KNOWN, r"loras\.ink: expected a scale from -4 to 4, got 4\.5"),
        ({"ink": float("nan")}, KNOWN, "expected a scale"),
        ({"ink": 1.0}, (), "this bundle has no live LoRA.*--lora-live"),
    ],
)
def test_what_is_not_there_is_one_line(asked, known, says):
    with pytest.raises(LoraError, match=says) as caught:
        lora_scales(asked, known)
    assert "\n" not in str(caught.value)


def test_a_network_that_takes_another_number_than_its_bundle_lists_is_refused():
    x = TensorSpec("x", "float32", (2, 4, 8, 8))
    check_input("unet", [x], KNOWN)  # of text encoders alone
    check_input("unet", [x, TensorSpec("lora_scale", "float32", (2, 2))], KNOWN)
    for shape, loras in (((2, 3), KNOWN), ((2,), KNOWN), ((2, 1), ())):
        with pytest.raises(BundleError, match="Export the bundle again"):
            check_input("unet", [x, TensorSpec("lora_scale", "float32", shape)], loras)
