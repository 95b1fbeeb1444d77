"""A Stable Diffusion checkpoint in memory, wherever it came from: the networks in float32, and their configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..onnx_writing import ExportError
from .families import Family
from .tokens import Tokenizer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint, on the CPU, in float32, in evaluation mode. The networks are its own: a LoRA is merged in place.

    name        fit for a bundle's
    source      the hub id with its revision, or the name of the folder or file
    unet, vae   of diffusers; no vae where it is elsewhere;  text: one text encoder of transformers, or two
    vae_config  of an AutoencoderKL as the family has it
    tokenizers  one for each text encoder
    scheduler   its configuration
    zeros_for_none  guidance without a negative prompt is told zeros, not the empty prompt
    """

    name: str
    source: str
    licence: str
    family: Family
    unet: nn.Module
    vae: nn.Module | None
    vae_config: Mapping[str, Any]
    text: tuple[nn.Module, ...]
    tokenizers: tuple[Tokenizer, ...]
    scheduler: dict[str, Any]
    zeros_for_none: bool


def open_checkpoint(
    source: str, *,
    family: str | None = None, tokenizer: Path | None = None, prediction: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Checkpoint:  # fmt: skip
    """Read a checkpoint.

    source     a folder in the layout of diffusers, a single .safetensors file, or a hub id, "owner/name"
    family     which of the families it is, for a single file, which does not always say
    tokenizer  a folder with the tokenizer of a single file; from the hub without it
    prediction "epsilon", "v" or "v-ztsnr" (v on levels with a terminal SNR of zero), whatever the checkpoint says
    say        is told what the checkpoint says of itself that is not as published, and what of it is left out

    Raises ExportError: nothing there, pickled or torn weights, a missing part, a family that cannot be exported.
    """
    # diffusers and transformers take seconds to import
    from .folder import read_folder
    from .hub import fetch
    from .markers import check_prediction
    from .single_file import read_single_file

    check_prediction(prediction)
    path = Path(source).expanduser()
    if path.is_dir():
        _only_for_single_files(family, tokenizer)
        return read_folder(
            path, path.resolve().name, prediction, say
        )  # a path of this machine is nobody else's business
    if path.is_file():
        if path.suffix == ".gguf":
            raise ExportError(f"{path}: quantised networks (.gguf) cannot be exported. Get the .safetensors of it")
        if path.suffix != ".safetensors":
            raise ExportError(
                f"{path} is no .safetensors file. Pickled checkpoints (.ckpt, .pt, .bin) are refused: opening one can "
                "run whatever its maker put in. Get the .safetensors of it"
            )
        return read_single_file(path, family, tokenizer, prediction=prediction, say=say)
    looks_like_a_file = path.suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
    if looks_like_a_file or source.count("/") != 1 or source.startswith(("/", ".", "~")):
        raise ExportError(f"{source}: no such folder or file, and no hub id, which looks like stabilityai/sd-turbo")
    _only_for_single_files(family, tokenizer)
    folder, revision = fetch(source)
    return read_folder(folder, f"{source}@{revision}", prediction, say)


def _only_for_single_files(family: str | None, tokenizer: Path | None) -> None:
    for flag, value in (("--family", family), ("--tokenizer", tokenizer)):
        if value is not None:
            raise ExportError(f"{flag} is for a single .safetensors file; this checkpoint says it itself. Leave it out")
