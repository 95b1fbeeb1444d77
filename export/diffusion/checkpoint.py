"""A Stable Diffusion checkpoint in memory: the networks in float32, and their configurations."""

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
    """A checkpoint, on the CPU, in float32, in evaluation mode. It owns its networks: a LoRA is merged in place.

    name        name for the bundle
    source      hub id with its revision, or name of the folder or file
    unet, vae   networks of diffusers; vae is None if the checkpoint has none
    vae_config  configuration of the family's AutoencoderKL
    text        one or two text encoders of transformers
    tokenizers  one for each text encoder
    scheduler   configuration of the scheduler
    zeros_for_none  without a negative prompt, guidance uses zeros instead of the empty prompt
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
    family     family of a single file, which does not always say
    tokenizer  a folder with the tokenizer for a single file; None: from the hub
    prediction "epsilon", "v" or "v-ztsnr" (v on levels with a terminal SNR of zero), overriding the checkpoint
    say        is called with a line for every setting that is not as published, and for parts that are left out

    Raises ExportError: nothing found, pickled or damaged weights, a missing part, an unsupported family.
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
        return read_folder(path, path.resolve().name, prediction, say)  # the path is private
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
