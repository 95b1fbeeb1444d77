"""The noise levels, the prediction and the timesteps of a checkpoint, from the configuration of its scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..onnx_writing import ExportError
from .families import Family

_SCHEDULES = {"scaled_linear": "scaled_linear", "linear": "linear", "squaredcos_cap_v2": "cosine"}
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}
_SPACINGS = ("leading", "trailing", "linspace")
# Spacing of schedulers whose configuration does not say.
_SPACING_BY_DEFAULT = {
    "EulerDiscreteScheduler": "linspace",
    "EulerAncestralDiscreteScheduler": "linspace",
    "DPMSolverMultistepScheduler": "linspace",
}
SOLVERS = ("ddim", "euler", "euler_ancestral", "heun", "lcm", "turbo")


@dataclass(frozen=True, slots=True)
class Sampler:
    """The fields of `bundle.json` on sampling."""

    prediction: str
    levels: dict[str, Any]
    steps: dict[str, Any]
    solver: dict[str, Any]


def sampler_of(family: Family, scheduler: Mapping[str, Any], solver: str | None = None) -> Sampler:
    """The sampling of a checkpoint, for `bundle.json`.

    scheduler  configuration of its scheduler
    solver     replaces that of the family, such as "lcm" with an LCM LoRA

    Raises ExportError for an unsupported setting.
    """
    name = solver or family.solver
    if name not in SOLVERS:
        raise ExportError(f"no solver is called {name!r}: one of {', '.join(SOLVERS)}")
    kind = str(scheduler.get("_class_name"))
    if kind.startswith(("EDM", "FlowMatch")):
        raise ExportError(
            f"scheduler: the noise levels of {kind} are those of another process; they cannot be exported"
        )
    if scheduler.get("trained_betas") is not None:
        raise ExportError("scheduler: trained_betas are a table of their own; only schedules by name can be exported")
    schedule = _known(scheduler, "beta_schedule", "linear", _SCHEDULES)
    prediction = _known(scheduler, "prediction_type", "epsilon", _PREDICTIONS)
    for key in ("clip_sample", "thresholding"):
        if scheduler.get(key) and name in ("ddim", "lcm"):
            raise ExportError(f"scheduler: {key} is of samplers of pictures; with it latents cannot be sampled here")
    terminal = bool(scheduler.get("rescale_betas_zero_snr", False))
    if terminal and prediction == "epsilon":
        raise ExportError("scheduler: at a terminal level without signal, prediction_type epsilon says nothing of x0")
    if terminal and name in ("euler", "euler_ancestral", "heun"):
        if solver is not None:
            raise ExportError(f"solver {name!r} works in sigma space, where a level without signal does not exist")
        name = "ddim"  # the same step, on levels that may have no signal
    trained = int(scheduler.get("num_train_timesteps", 1000))
    return Sampler(
        prediction=prediction,
        levels={
            "schedule": schedule,
            "beta_start": float(scheduler.get("beta_start", 0.0001)),
            "beta_end": float(scheduler.get("beta_end", 0.02)),
            "train_timesteps": trained,
            "zero_terminal_snr": terminal,
        },
        steps={"top": float(trained - 1), "floor": 0.0, **_spacing(name, scheduler)},
        solver={"name": name, "karras": name in ("euler", "heun") and bool(scheduler.get("use_karras_sigmas"))},
    )


def _spacing(solver: str, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    if solver == "lcm":
        return {"spacing": "lcm", "offset": 0, "original_steps": int(scheduler.get("original_inference_steps", 50))}
    if solver == "turbo":
        return {"spacing": "trailing", "offset": 0}  # its checkpoints are distilled for the noisiest level
    default = _SPACING_BY_DEFAULT.get(str(scheduler.get("_class_name")), "leading")
    spacing = _known(scheduler, "timestep_spacing", default, {name: name for name in _SPACINGS})
    offset = int(scheduler.get("steps_offset", 0)) if spacing == "leading" else 0
    return {"spacing": spacing, "offset": offset, "end": "lowest" if _ends_noisy(solver, scheduler) else "clean"}


def _ends_noisy(solver: str, scheduler: Mapping[str, Any]) -> bool:
    """The last step ends at the lowest level of the table, not at a clean latent."""
    if solver == "ddim":
        return not scheduler.get("set_alpha_to_one", scheduler.get("_class_name") != "PNDMScheduler")
    return solver == "euler" and scheduler.get("final_sigmas_type", "zero") == "sigma_min"


def _known(scheduler: Mapping[str, Any], key: str, default: str, known: Mapping[str, str]) -> str:
    value = str(scheduler.get(key, default))
    if value not in known:
        raise ExportError(f"scheduler: {key} {value!r} cannot be exported: one of {', '.join(known)}")
    return known[value]
