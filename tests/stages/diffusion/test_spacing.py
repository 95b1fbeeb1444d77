"""Timesteps are those of the samplers of diffusers wherever these make as many calls; between, they do not jump."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

from warpfuse.stages.diffusion.spacing import SPACINGS, Spacing

STEPS = range(1, 5)
KINDS = ("DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler")


def theirs(kind, own_steps, strength, **config):
    """The timesteps of an img2img pipeline of `own_steps` steps, each once, highest first."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")
    scheduler = getattr(diffusers, kind)(num_train_timesteps=1000, **config)
    scheduler.set_timesteps(own_steps)
    of_pipeline = diffusers.StableDiffusionImg2ImgPipeline.get_timesteps
    found, calls = of_pipeline(SimpleNamespace(scheduler=scheduler), own_steps, strength, "cpu")
    found = list(dict.fromkeys(found.tolist()))
    assert len(found) == calls == int(own_steps * strength)
    return found


def test_spacings_are_the_published_ones():
    assert Spacing("leading", offset=1).timesteps(4) == (751, 501, 251, 1)
    assert Spacing("trailing").timesteps(4) == (999, 749, 499, 249)
    assert Spacing("trailing").timesteps(1) == (999,)
    assert Spacing("trailing").timesteps(3) == (999, 666, 332)
    assert Spacing("linspace").timesteps(4) == pytest.approx((999, 666, 333, 0))
    assert Spacing("lcm").timesteps(4) == (999, 759, 499, 259)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs, under NumPy 2
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_calls_are_the_last_of_the_pipelines_steps(spacing, kind):
    compared = 0
    for offset in (0, 1) if spacing == "leading" else (0,):
        ours = Spacing(spacing, offset=offset)
        for steps in STEPS:
            for own_steps in (*range(steps, 31), 40, 50, 64, 80, 100):
                strength = steps / own_steps
                if int(own_steps * strength) != steps:
                    continue  # their product of two roundings is a call less
                wanted = theirs(kind, own_steps, strength, timestep_spacing=spacing, steps_offset=offset)
                found = ours.timesteps(steps, strength)
                if kind == "DDIMScheduler":
                    found = [round(t) for t in found]
                assert found == pytest.approx(wanted, abs=1e-4), (steps, own_steps)
                compared += 1
    assert compared > 100


def test_calls_of_a_consistency_model_are_the_pipelines_at_every_strength():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")
    for original in (50, 100):
        scheduler = diffusers.LCMScheduler(original_inference_steps=original)
        for steps in STEPS:
            for percent in range(1, 101):
                strength = percent / 100
                found = Spacing("lcm", original_steps=original).timesteps(steps, strength)
                if int(original * strength) < steps:  # where they refuse, the lowest there are
                    assert found == tuple(1000 // original * k - 1 for k in range(steps, 0, -1))
                    continue
                scheduler.set_timesteps(steps, original_inference_steps=original, strength=strength)
                assert found == tuple(scheduler.timesteps.tolist()), (steps, strength)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
def test_strength_moves_every_step_without_a_jump(spacing, steps):
    found = [Spacing(spacing, offset=int(spacing == "leading")).timesteps(steps, s / 1000) for s in range(1001)]
    for lower, higher in pairwise(found):
        assert len(higher) == steps and all(0 <= t <= 999 for t in higher)
        assert all(a > b for a, b in pairwise(higher))
        assert all(0 <= b - a <= 21 for a, b in zip(lower, higher, strict=True))
    assert max(found[0]) < (100 if spacing == "lcm" else 5)
    if steps > 1:
        assert found[0] != found[-1]


def test_control_whole_numbers_of_steps_alone_jump():
    """What a pipeline does when strength is all that changes: half its steps are one call, and two of them two."""
    assert len(theirs("DDIMScheduler", 4, 0.74)) != len(theirs("DDIMScheduler", 4, 0.76))
    assert Spacing("leading").timesteps(4, 0.5) != Spacing("trailing").timesteps(4, 0.5)


def test_the_ends_are_those_of_all_steps():
    assert Spacing("leading", offset=1).ends(2, 0.5) == (751, 1)
    assert Spacing("trailing").ends(2, 0.5) == (999, 249)
    assert Spacing("linspace").ends(2, 0.5) == (999, 0)
    assert Spacing("linspace").ends(1) == (0, 0)


def test_out_of_range_is_refused():
    with pytest.raises(ValueError, match="leading, trailing, linspace"):
        Spacing("even")
    for steps, strength in ((0, 1.0), (1001, 1.0), (1, 1.1), (1, -0.1)):
        with pytest.raises(ValueError, match="steps must be in"):
            Spacing("leading").timesteps(steps, strength)
    with pytest.raises(ValueError, match="leads outside"):
        Spacing("leading", offset=1).timesteps(1000)
    with pytest.raises(ValueError, match="offset must be in"):
        Spacing("leading", offset=1000)
    assert Spacing("trailing", train_timesteps=20).timesteps(4) == (19, 14, 9, 4)  # original_steps is lcm's alone
    for original in (0, 1001):
        with pytest.raises(ValueError, match="original_steps"):
            Spacing("lcm", original_steps=original)
