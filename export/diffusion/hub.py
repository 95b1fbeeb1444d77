"""Downloading checkpoints from the hub: only the needed files, weights only as safetensors. Downloads are resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from warpfuse.engine.errors import one_line

from ..onnx_writing import ExportError

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_DESCRIPTIONS = ("model_index.json", "README.md", "*/*config.json", "tokenizer*/*")


def fetch(source: str) -> tuple[Path, str]:
    """Download a checkpoint with a progress bar into the hub's own cache. Returns (folder, revision).

    Raises ExportError: no such checkpoint, no safetensors, no connection, no disk space.
    """
    return _fetched(source, lambda names: [*_DESCRIPTIONS, *weights_needed(source, names)])


def fetch_network(source: str) -> Path:
    """Download one network with its config.json, as `fetch`. Returns its folder. Raises ExportError."""
    return _fetched(source, lambda names: network_needed(source, names))[0]


def fetch_image_adapter(source: str, file: str, encoder: str | None) -> tuple[Path, Path | None]:
    """Download an IP-Adapter, and with `encoder` its image encoder, as `fetch`. Returns their paths.

    file     file in the repository; "": the only one at its top
    encoder  folder in the repository; None: no encoder

    Raises ExportError.
    """
    found: list[str] = []

    def needed(names: list[str]) -> list[str]:
        found.extend([adapter_needed(source, file, names)])
        return found + ([] if encoder is None else folder_needed(source, encoder, names))

    folder, _ = _fetched(source, needed)
    return folder / found[0], None if encoder is None else folder / encoder


def fetch_folder(source: str, folder: str) -> Path:
    """Download a network in a folder of a repository, as `fetch`. folder: "" is its top. Raises ExportError."""
    return _fetched(source, lambda names: folder_needed(source, folder, names))[0] / folder


def _fetched(source: str, needed: Callable[[list[str]], list[str]]) -> tuple[Path, str]:
    """Download files of a repository. Returns (folder, revision). needed: the names to download, from all names."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().model_info(source)
        names = [sibling.rfilename for sibling in info.siblings or ()]
        folder = snapshot_download(source, revision=info.sha, allow_patterns=needed(names))
    except HfHubHTTPError as error:
        reason = one_line(error, 200)
        raise ExportError(f"{source}: the hub refuses: {reason}. Check the name, or log in: hf auth login") from None
    except OSError as error:
        reason = one_line(error, 200)
        raise ExportError(f"{source}: {reason}. What arrived is kept; run it again to resume") from None
    except Exception as error:  # httpx raises types of its own, and the hub's library moved them between versions
        if not type(error).__module__.startswith(("http", "huggingface_hub")):
            raise
        reason = one_line(error, 200)
        raise ExportError(f"{source}: cannot reach the hub: {reason}. Run it again to resume") from None
    return Path(folder), info.sha or "unknown"


def weights_needed(source: str, names: Iterable[str]) -> list[str]:
    """The weight files to download from a checkpoint: those in full precision, else those in half precision.

    Raises ExportError: no checkpoint in the layout of diffusers, or only pickled weights.
    """
    names = list(names)
    if "model_index.json" not in names:
        raise ExportError(f"{source} has no model_index.json: it is no checkpoint in the layout of diffusers")
    needed: list[str] = []
    for part in _PARTS:
        of_part = [name for name in names if name.startswith(f"{part}/")]
        needed += _weights_of(f"{source}: {part}", of_part) if of_part else []
    return needed


def network_needed(source: str, names: Iterable[str]) -> list[str]:
    """The files to download from a repository with a single network. Raises ExportError: no network, or pickled."""
    at_top = [name for name in names if "/" not in name]
    if "config.json" not in at_top:
        raise ExportError(f"{source} has no config.json: it is no network in the layout of diffusers")
    return ["config.json", *_weights_of(source, at_top)]


def adapter_needed(source: str, file: str, names: Iterable[str]) -> str:
    """The file of an IP-Adapter in a repository. Raises ExportError: not found, pickled, or ambiguous."""
    names = list(names)
    if file:
        if file not in names:
            raise ExportError(f"{source} has no file {file}. Those it has: {_listed(_safe(names))}")
        return file
    at_top = _safe(name for name in names if "/" not in name)
    if len(at_top) != 1:
        raise ExportError(
            f"{source} holds {len(at_top)} .safetensors files at its top: say which, as in {source}/FILE. Those it "
            f"has: {_listed(_safe(names))}"
        )
    return at_top[0]


def folder_needed(source: str, folder: str, names: Iterable[str]) -> list[str]:
    """The files to download for a network in a folder of a repository. Raises ExportError: no network, or pickled."""
    prefix = f"{folder}/" if folder else ""
    inside = [name for name in names if name.startswith(prefix) and "/" not in name.removeprefix(prefix)]
    if f"{prefix}config.json" not in inside:
        raise ExportError(f"{source} has no {prefix}config.json: give the folder of the image encoder")
    return [f"{prefix}config.json", *_weights_of(f"{source}/{folder}".rstrip("/"), inside)]


def _safe(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors")]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "none that is .safetensors"


def _weights_of(what: str, names: Iterable[str]) -> list[str]:
    """The safetensors in full precision, else those in half precision. Raises ExportError if there are none."""
    safe = [name for name in names if name.endswith(".safetensors") or ".safetensors.index." in name]
    if not safe:
        raise ExportError(
            f"{what} has pickled weights alone. They are refused: opening them can run whatever their "
            "maker put in. Take a checkpoint with safetensors"
        )
    full = [name for name in safe if ".fp16." not in name and ".non_ema." not in name]
    return full or [name for name in safe if ".fp16." in name]
