"""Recognising a single file by its keys and metadata: its family, the prediction of its UNet, unsupported kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..onnx_writing import ExportError
from .families import EDITING, WORKING, refused

PREDICTIONS = ("epsilon", "v", "v-ztsnr")
UNET = "model.diffusion_model."
GUIDED = f"{UNET}time_embed.cond_proj.weight"  # only latent consistency models have it

# One key of each text encoder, and the families with this encoder. The last is for files before transformers 4.
_MARKS = {
    "conditioner.embedders.1.model.ln_final.weight": ("sdxl", "sdxl-turbo"),
    "cond_stage_model.model.ln_final.weight": ("sd21", "sd-turbo"),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": ("sd15", "lcm"),
    "cond_stage_model.transformer.final_layer_norm.weight": ("sd15", "lcm"),
}
# Pattern of keys -> kind of a file with such a key. The first match counts.
_OTHERS = {
    r"\.(absmax|quant_map|quant_state\..*)$": "a checkpoint quantised by bitsandbytes",
    r"joint_blocks\.|joint_transformer_blocks\.": "Stable Diffusion 3",
    r"double_stream_blocks\.": "HiDream",
    r"(^|\.)(double_blocks|single_transformer_blocks)\.": "Flux or a relative of it",
    r"(^|\.)clip_txt_mapper\.": "Stable Cascade",
    r"(^|\.)(cap_embedder|noise_refiner)\.": "Lumina",
    r"(^|\.)(adaln_single|caption_projection|y_embedder)\.": "PixArt or a relative of it",
    r"(^|\.)head\.modulation$": "Wan",
    r"\.time_stack\.|\.time_mixer\.": "Stable Video Diffusion",
    r"motion_modules\.": "a motion module of AnimateDiff",
    r"^control_model\.|input_hint_block\.|controlnet_": "a ControlNet",
    r"^edm_mean$": "Playground 2.5, whose noise levels are EDM's,",
    r"^edm_vpred\.": "CosXL, whose noise levels are EDM's,",
}
_ALONE = {
    r"\.lora_(down|up|A|B)\b|\.hada_|\.lokr_|^lora_": "a LoRA, which --lora takes beside a checkpoint,",
    r"^(first_stage_model|vae)\.|^(encoder|decoder)\.(down|up|mid|conv_in)": "an autoencoder, which --vae takes,",
    r"^model_ema\.": "the averaged twins of a UNet (model_ema) without the UNet",
    r"^(unet\.)?down_blocks\.": "a UNet alone, in the keys of diffusers,",
    r"^emb_params$|^clip_[lg]$": "an embedding, which --embedding takes beside a checkpoint,",
    r"^(text_model|transformer\.resblocks|encoder\.layers)\.": "a text encoder alone",
    r"(^|\.)transformer_blocks\.": "a diffusion transformer",
}


@dataclass(frozen=True, slots=True)
class Markers:
    """A file without its weights: its name, the shapes of its tensors by name, and its metadata."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


def markers_of(path: Path) -> Markers:
    """Read the markers of an undamaged file."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
        return Markers(path.name, shapes, file.metadata() or {})


def family_in(markers: Markers, asked: str | None) -> str:
    """The family of a file, by its keys, and by `asked` if they fit several. Raises ExportError."""
    if asked is not None and asked not in WORKING:
        raise refused(f"--family {asked}")
    _refuse_others(markers)
    name, shapes = markers.name, markers.shapes
    fits: tuple[str, ...] | None = next((families for mark, families in _MARKS.items() if mark in shapes), None)
    if fits is None:
        if any(key.startswith("conditioner.embedders.0.model.") for key in shapes):
            raise refused(f"{name}: the SDXL refiner")
        raise ExportError(
            f"{name}: text encoder is missing: the file holds none of {', '.join(WORKING)}'s. Take a whole one"
        )
    if "sd21" in fits and f"{UNET}label_emb.0.0.weight" in shapes:
        raise refused(f"{name}: SD 2.1 unCLIP, which takes a picture in the place of a prompt,")
    if fits == ("sd15", "lcm"):
        fits = ("lcm",) if GUIDED in shapes else ("sd15",)
    if asked is None and len(fits) > 1:
        if _marked(markers)[0] == "v":
            return fits[0]  # the turbo families predict epsilon
        raise ExportError(f"{name} may be {' or '.join(fits)}, and the file does not say. Add --family {fits[0]}")
    if asked is not None and asked not in fits:
        raise ExportError(f"{name} is {' or '.join(fits)} by its keys, not --family {asked}")
    return asked or fits[0]


def prediction_in(markers: Markers, family: str, asked: str | None, say: Callable[[str], None]) -> str:
    """The prediction of a file's UNet, one of `PREDICTIONS`: as asked, else as the file says, else as published.

    say  is called with a line if it is not as published

    Raises ExportError for SD 2.1, which was published with two predictions, if the file does not say which.
    """
    kind, why = _marked(markers)
    terminal = "ztsnr" in markers.shapes or markers.metadata.get("ss_zero_terminal_snr", "").lower() == "true"
    if asked is not None:
        if kind is not None and kind != asked.partition("-")[0]:
            say(f"{markers.name}: {why} says that it predicts {kind}; taken as {asked}, as --prediction says")
        return "v-ztsnr" if asked == "v" and terminal else asked
    if kind is None:
        if family == "sd21":
            raise ExportError(
                f"{markers.name}: SD 2.1 predicts v (the one of 768 pixels) or epsilon (base, of 512), and the file "
                "does not say which. Add --prediction v or --prediction epsilon"
            )
        return "epsilon"
    found = "v-ztsnr" if kind == "v" and terminal else kind
    if found != "epsilon":
        say(f"{markers.name}: predicts {told(found)}, as {why} says")
    return found


def told(prediction: str) -> str:
    """A prediction in words."""
    return prediction.replace("v-ztsnr", "v on levels with a terminal SNR of zero")


def predicting(scheduler: Mapping[str, Any], prediction: str) -> dict[str, Any]:
    """The configuration of a scheduler for one of `PREDICTIONS`.

    Only trailing spacing uses the level without signal (Lin et al. 2024, section 3.3).
    """
    kind = "epsilon" if prediction == "epsilon" else "v_prediction"
    changed = {**scheduler, "prediction_type": kind}
    if kind == "epsilon":
        changed.pop("rescale_betas_zero_snr", None)
    elif prediction == "v-ztsnr":
        changed |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return changed


def check_prediction(asked: str | None) -> None:
    """Raise ExportError unless `asked` is None or one of `PREDICTIONS`."""
    if asked is not None and asked not in PREDICTIONS:
        raise ExportError(f"--prediction {asked}: expected {', '.join(PREDICTIONS)}")


def _marked(markers: Markers) -> tuple[str | None, str]:
    """("epsilon", "v" or None, name of the tensor or metadata that says so)."""
    if "v_pred" in markers.shapes:
        return "v", "its tensor v_pred"
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        value = markers.metadata.get(key, "").lower()
        if re.fullmatch(r"v|v[-_ ]?pred(iction)?|velocity", value):
            return "v", f"its {key}"
        if re.fullmatch(r"eps|epsilon", value):
            return "epsilon", f"its {key}"
    architecture = markers.metadata.get("modelspec.architecture", "")
    if architecture.startswith("stable-diffusion-v2-768-v"):
        return "v", "its modelspec.architecture"
    if architecture.startswith("stable-diffusion-v2-512"):
        return "epsilon", "its modelspec.architecture"
    return None, ""


def _refuse_others(markers: Markers) -> None:
    """Raise ExportError with the name of the kind for a file of an unsupported kind."""
    has_unet = any(name.startswith(UNET) for name in markers.shapes)
    for pattern, kind in {**_OTHERS, **({} if has_unet else _ALONE)}.items():
        if any(re.search(pattern, name) for name in markers.shapes):
            raise refused(f"{markers.name}: {kind}")
    if not has_unet:
        raise refused(f"{markers.name}, which holds no UNet of Stable Diffusion,")
    first = markers.shapes.get(f"{UNET}input_blocks.0.0.weight")
    if first is not None and len(first) == 4 and first[1] != 4:
        kind = EDITING.get(first[1], "a checkpoint")
        raise refused(f"{markers.name}: {kind} (its UNet takes {first[1]} channels, not 4)")
