"""What a checkpoint is, and how it is sampled, is read from its configurations; what is not known is refused."""

import pytest

from warpfuse.export.diffusion import published
from warpfuse.export.diffusion.families import WORKING, family_of
from warpfuse.export.diffusion.schedule import sampler_of
from warpfuse.export.onnx_writing import ExportError


def family(name, index=None, unet=None, scheduler=None):
    described = {"_class_name": published.pipeline(name), "text_encoder": ["transformers", "CLIPTextModel"]}
    unet = {"_class_name": "UNet2DConditionModel", **published.UNETS[name], **(unet or {})}
    return family_of({**described, **(index or {})}, unet, {**published.SCHEDULERS[name], **(scheduler or {})})


def sampler(name, solver=None, **scheduler):
    return sampler_of(family(name), {**published.SCHEDULERS[name], **scheduler}, solver)


@pytest.mark.parametrize("name", WORKING)
def test_each_published_configuration_is_its_family(name):
    found = family(name)
    assert (found.name, found.xl) == (name, name.startswith("sdxl"))


@pytest.mark.parametrize(
    "name, solver, prediction, spacing",
    [
        ("sd15", "ddim", "epsilon", ("leading", 1)),
        ("sd21", "ddim", "v", ("leading", 1)),
        ("sd-turbo", "euler", "epsilon", ("trailing", 0)),
        ("sdxl", "euler", "epsilon", ("leading", 1)),
        ("sdxl-turbo", "euler_ancestral", "epsilon", ("trailing", 0)),
        ("lcm", "lcm", "epsilon", ("lcm", 0)),
    ],
)
def test_each_family_has_its_solver(name, solver, prediction, spacing):
    found = sampler(name)
    assert (found.solver["name"], found.prediction) == (solver, prediction)
    assert (found.steps["spacing"], found.steps["offset"]) == spacing
    assert found.levels["schedule"] == "scaled_linear" and found.levels["beta_end"] == 0.012


def test_an_inpainting_pipeline_with_a_plain_unet_is_a_plain_checkpoint():
    assert family("sd15", {"_class_name": "StableDiffusionInpaintPipeline"}).name == "sd15"
    assert family("sdxl", {"_class_name": "StableDiffusionXLInpaintPipeline"}).name == "sdxl"


def test_trailing_euler_is_turbo_only_where_there_is_a_turbo():
    trailing = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
    assert (family("sd15", scheduler=trailing).name, family("sd15", scheduler=trailing).solver) == ("sd15", "euler")
    assert family("sdxl", scheduler=trailing).name == "sdxl-turbo"
    assert family("sd21", scheduler=trailing).name == "sd21"  # it predicts v


@pytest.mark.parametrize(
    "name, index, unet, scheduler, says",
    [
        ("sd15", {"_class_name": "StableDiffusion3Pipeline"}, {}, {}, "StableDiffusion3Pipeline cannot be exported"),
        ("sd15", {"_class_name": "FluxPipeline"}, {}, {}, "FluxPipeline"),
        ("sd15", {}, {"in_channels": 9}, {}, "an inpainting checkpoint .its UNet takes 9"),
        ("sd15", {"_class_name": "StableDiffusionInpaintPipeline"}, {"in_channels": 9}, {}, "an inpainting checkpoint"),
        ("sd15", {}, {"in_channels": 8}, {}, "as InstructPix2Pix is, .its UNet takes 8"),
        ("sd21", {}, {"in_channels": 5}, {}, "a depth-to-image checkpoint"),
        ("sd15", {}, {"class_embed_type": "projection"}, {}, "class_embed_type"),
        ("sd15", {}, {"_class_name": "SD3Transformer2DModel"}, {}, "with a SD3Transformer2DModel"),
        ("sdxl", {"requires_aesthetics_score": True}, {}, {}, "refiner"),
        ("sdxl", {"text_encoder": [None, None]}, {}, {}, "refiner"),
        ("sdxl", {"_class_name": "StableDiffusionPipeline"}, {}, {}, "addition_embed_type of another kind"),
    ],
)
def test_another_family_is_refused_by_name_with_those_that_work(name, index, unet, scheduler, says):
    with pytest.raises(ExportError, match=says) as caught:
        family(name, index, unet, scheduler)
    assert all(working in str(caught.value) for working in WORKING) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "scheduler, says",
    [
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid'"),
        ({"prediction_type": "flow_prediction"}, "prediction_type 'flow_prediction'"),
        ({"_class_name": "EDMEulerScheduler"}, "noise levels of EDMEulerScheduler"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "noise levels of FlowMatch"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"timestep_spacing": "random"}, "timestep_spacing 'random'"),
        ({"rescale_betas_zero_snr": True}, "says nothing of x0"),
        ({"clip_sample": True}, "clip_sample"),
        ({"thresholding": True}, "thresholding"),
    ],
)
def test_a_setting_without_a_counterpart_is_refused(scheduler, says):
    with pytest.raises(ExportError, match=says):
        sampler("sd15", **scheduler)


def test_a_level_without_signal_is_not_sampled_in_sigma_space():
    terminal = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    found = sampler("sdxl", **terminal)
    assert found.levels["zero_terminal_snr"] and found.solver["name"] == "ddim"
    assert (found.prediction, found.steps["spacing"]) == ("v", "trailing")
    with pytest.raises(ExportError, match="sigma space"):
        sampler("sdxl", solver="euler", **terminal)


def test_a_solver_that_is_asked_for_takes_the_place_of_the_familys_own():
    """As an LCM LoRA on SD 1.5 needs."""
    found = sampler("sd15", solver="lcm")
    assert found.solver["name"] == "lcm" and found.steps["spacing"] == "lcm"
    assert sampler("sd-turbo", solver="turbo").steps["spacing"] == "trailing"


@pytest.mark.parametrize("scheduler, spacing", [("EulerDiscreteScheduler", "linspace"), ("DDIMScheduler", "leading")])
def test_a_scheduler_that_names_no_spacing_has_its_own_default(scheduler, spacing):
    bare = {"_class_name": scheduler, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
    assert sampler_of(family("sd15"), bare).steps["spacing"] == spacing
    import diffusers

    assert getattr(diffusers, scheduler)().config.timestep_spacing == spacing  # the reference


@pytest.mark.parametrize(
    "name, scheduler, end",
    [
        ("sd15", {}, "lowest"),
        ("sd15", {"set_alpha_to_one": True}, "clean"),
        ("sd21", {"_class_name": "DPMSolverMultistepScheduler", "set_alpha_to_one": True}, "clean"),
        ("sdxl", {}, "clean"),
        ("sdxl", {"final_sigmas_type": "sigma_min"}, "lowest"),
        ("sdxl-turbo", {"final_sigmas_type": "sigma_min"}, "clean"),  # its scheduler has no such setting
    ],
)
def test_the_last_step_ends_where_the_scheduler_ends(name, scheduler, end):
    assert sampler(name, **scheduler).steps["end"] == end


def test_a_consistency_model_tells_how_it_was_distilled():
    assert sampler("lcm").steps == {
        "top": 999.0, "floor": 0.0, "spacing": "lcm", "offset": 0, "original_steps": 50
    }  # fmt: skip
    assert sampler("lcm", original_inference_steps=100).steps["original_steps"] == 100
