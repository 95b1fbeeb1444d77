"""Loading weights from safetensors into networks of diffusers and transformers. A missing tensor is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from warpfuse.engine.errors import one_line

from ..onnx_writing import ExportError

Tensors = dict[str, Tensor]

PICKLED = (".bin", ".ckpt", ".pt", ".pth")
_EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
_INTEGERS = (torch.int8, torch.uint8)
# Keys for the scale of an 8-bit weight in files of ComfyUI and others, after the name of the layer.
_SCALES = ("scale_weight", "weight_scale")


def check_weights(folder: Path, source: str) -> str | None:
    """Check the weights of a part. Returns their variant: None for full precision, "fp16" for half precision.

    Raises ExportError: no safetensors, or a damaged one.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors")
    if not files:
        if any(path.suffix in PICKLED for path in folder.iterdir()):
            raise ExportError(
                f"{source}: {folder.name} has pickled weights alone. They are refused: opening them can run whatever "
                "their maker put in. Take a checkpoint with safetensors"
            )
        raise ExportError(f"{source}: {folder.name} has no weights (.safetensors). Copy or download it again, whole")
    for file in files:
        check_safetensors(file)
    return "fp16" if all(".fp16." in file.name for file in files) else None


def check_safetensors(path: Path) -> None:
    """Raise ExportError if the file is damaged or empty."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as tensors:
            names = list(tensors.keys())
    except (SafetensorError, OSError) as error:
        reason = one_line(error, 150)
        raise ExportError(f"{path} is torn: {reason}. Copy or download it again") from None
    if not names:
        raise ExportError(f"{path} holds no tensor. Copy or download it again")


def read_tensors(path: Path) -> Tensors:
    """Read all tensors of a file. 8-bit floats are converted to float16, which is exact, or if they have a scale, to
    float32 times the scale.

    Raises ExportError: a damaged file, or integer weights.
    """
    from safetensors.torch import load_file

    check_safetensors(path)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.dtype in _INTEGERS:
            raise ExportError(
                f"{path.name}: {name} is in integers. Quantised networks cannot be exported: get a full one"
            )
        if tensor.dtype in _EIGHT_BITS:
            scale = _scale(tensors, name, tensor.dim())
            tensors[name] = tensor.half() if scale is None else tensor.float() * scale
    return tensors


def _scale(tensors: Tensors, name: str, dimensions: int) -> Tensor | None:
    layer = name.rpartition(".")[0]
    found = next((tensors[f"{layer}.{key}"] for key in _SCALES if f"{layer}.{key}" in tensors), None)
    if found is None or not name.endswith(".weight"):
        return None
    return found.float().reshape(()) if found.numel() == 1 else found.float().reshape(-1, *[1] * (dimensions - 1))


def filled(network: Any, convert: Callable[[], Tensors], part: str, name: str) -> nn.Module:
    """Load all tensors of a network, float32. Other tensors, such as a last layer that is not used, are left out.

    convert     returns the tensors
    part, name  names of the network and of the file, for errors

    Raises ExportError: a tensor is missing, or has another shape.
    """
    try:
        missing, _ = network.load_state_dict(convert(), strict=False)
    except (KeyError, IndexError, ValueError, RuntimeError, AttributeError) as error:
        reason = one_line(error, 200)
        raise ExportError(f"{name}: its {part} does not fit: {reason}") from None
    if missing:
        raise ExportError(f"{name}: its {part} lacks {len(missing)} tensors, {missing[0]} for one")
    whole: nn.Module = network.float().eval().requires_grad_(False)
    return whole


def load_diffusers(kind: str, folder: Path) -> nn.Module:
    """Load a network of diffusers with all its weights, float32. kind: its class. Raises ExportError."""
    import diffusers

    return _load(getattr(diffusers, kind), folder, low_cpu_mem_usage=False, torch_dtype=torch.float32)


def load_text(folder: Path, projected: bool) -> nn.Module:
    """Load a CLIP text encoder with all its weights, float32. projected: with a projection of the pooled vector."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # loading takes a second only
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return _load(kind, folder, dtype=torch.float32)


def load_image_encoder(folder: Path) -> nn.Module:
    """Load a CLIP vision encoder with its projection, float32. Raises ExportError."""
    from transformers import CLIPVisionModelWithProjection
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return _load(CLIPVisionModelWithProjection, folder, dtype=torch.float32)


def _load(kind: Any, folder: Path, **options: Any) -> nn.Module:
    variant = check_weights(folder, str(folder.parent))
    try:
        network, info = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, variant=variant, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = one_line(error, 200)
        raise ExportError(f"{folder} does not hold a {kind.__name__}: {reason}") from None
    odd = [*info["missing_keys"], *info["mismatched_keys"]]
    if odd:
        raise ExportError(f"{folder}: {len(odd)} tensors of the network are missing or misshapen, {odd[0]} for one")
    evaluated: nn.Module = network.eval().requires_grad_(False)
    return evaluated
