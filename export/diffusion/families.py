"""The families of checkpoints that can be exported. They are recognised by configurations, never by names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..onnx_writing import ExportError

WORKING = ("sd15", "sd21", "sd-turbo", "sdxl", "sdxl-turbo", "lcm")

_PIPELINES = {
    "StableDiffusionPipeline": False,
    "StableDiffusionImg2ImgPipeline": False,
    "StableDiffusionInpaintPipeline": False,  # it takes any UNet; those for inpainting have more channels
    "StableDiffusionXLPipeline": True,
    "StableDiffusionXLImg2ImgPipeline": True,
    "StableDiffusionXLInpaintPipeline": True,
    "LatentConsistencyModelPipeline": False,
    "LatentConsistencyModelImg2ImgPipeline": False,
}
# Input channels of a UNet -> its kind, for those other than 4.
EDITING = {
    5: "a depth-to-image checkpoint",
    7: "an upscaling checkpoint",
    8: "an editing checkpoint, as InstructPix2Pix is,",
    9: "an inpainting checkpoint",
}
BY_WIDTH = {768: "SD 1.5", 1024: "SD 2", 2048: "SDXL"}
_TURBO_SCHEDULERS = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
# Scheduler of a checkpoint -> solver. For multi-step schedulers (PNDM, DPM-Solver) it is DDIM.
_SOLVERS = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "HeunDiscreteScheduler": "heun",
}


@dataclass(frozen=True, slots=True)
class Family:
    """A family of checkpoints.

    name    one of `WORKING`
    xl      it has two text encoders, a pooled text vector and time ids
    solver  the solver for its checkpoints
    """

    name: str
    xl: bool
    solver: str


def family_of(index: Mapping[str, Any], unet: Mapping[str, Any], scheduler: Mapping[str, Any]) -> Family:
    """The family of a checkpoint, from model_index.json and the configurations of its UNet and scheduler.

    Raises ExportError for other checkpoints.
    """
    pipeline = str(index.get("_class_name"))
    if pipeline not in _PIPELINES:
        raise refused(pipeline)
    if unet.get("_class_name") != "UNet2DConditionModel":
        raise refused(f"{pipeline} with a {unet.get('_class_name')}")
    ins, outs = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if ins != outs:
        kind = EDITING.get(ins, "an inpainting or editing checkpoint")
        raise refused(f"{kind} (its UNet takes {ins} channels and gives {outs})")
    xl = unet.get("addition_embed_type") == "text_time"
    if xl and (index.get("requires_aesthetics_score") or (index.get("text_encoder") or [None])[0] is None):
        raise refused("the SDXL refiner")
    unknown = [key for key in ("class_embed_type", "encoder_hid_dim_type") if unet.get(key) is not None]
    if unknown or unet.get("addition_embed_type") not in (None, "text_time") or xl != _PIPELINES[pipeline]:
        raise refused(f"{pipeline} with {', '.join(unknown) or 'addition_embed_type'} of another kind")
    return _variant(unet, scheduler, xl)


def family_by_width(width: int | None) -> str:
    """Name of the family whose context has this width, for errors."""
    return BY_WIDTH.get(width or 0, f"another family (its context is {width} wide)")


def refused(what: str) -> ExportError:
    """The error for an unsupported checkpoint."""
    return ExportError(f"{what} cannot be exported. Those that work: {', '.join(WORKING)}")


def _variant(unet: Mapping[str, Any], scheduler: Mapping[str, Any], xl: bool) -> Family:
    sampler = str(scheduler.get("_class_name"))
    if sampler == "LCMScheduler" or unet.get("time_cond_proj_dim") is not None:
        return Family("lcm", xl, "lcm")
    epsilon = scheduler.get("prediction_type", "epsilon") == "epsilon"
    # Turbo checkpoints are distilled for few steps, and their samplers start a single step at the noisiest level.
    second = bool(unet.get("use_linear_projection"))  # SD 2 and SDXL have it, SD 1 does not
    if sampler in _TURBO_SCHEDULERS and scheduler.get("timestep_spacing") == "trailing" and epsilon and second:
        return Family("sdxl-turbo" if xl else "sd-turbo", xl, _SOLVERS[sampler])
    return Family("sdxl" if xl else "sd21" if second else "sd15", xl, _SOLVERS.get(sampler, "ddim"))
