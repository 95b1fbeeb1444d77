"""`warpfuse bundles`: the bundles that are found by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from warpfuse.engine.bundle import (
    find_bundles,
    load_autoencoder_bundle,
    load_bundle,
    load_flow_bundle,
    load_map_bundle,
    read_description,
)
from warpfuse.engine.bundle_file import BundleFile, DescribedKind
from warpfuse.engine.errors import BundleError

_OPENED_BY: dict[str, Callable[[str], object]] = {
    "latent-diffusion": load_bundle,
    "flow": load_flow_bundle,
    "autoencoder": load_autoencoder_bundle,
    "map": load_map_bundle,
}


def bundles(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The bundles that can be asked for by name, and their styles."""
    listed = {name: _examined(folder) for name, folder in find_bundles().items()}
    if as_json:
        print(json.dumps({"bundles": [_to_dict(name, *found) for name, found in listed.items()]}, indent=1))
        return
    console = Console()
    for name, (folder, about, problem) in listed.items():
        if about is None:
            console.print(f"{name}  cannot be used: {problem}", markup=False)
            continue
        console.print(f"{name}  {about.kind}, licence {about.licence}, {folder}", markup=False)
        if isinstance(about, BundleFile):
            for style, description in about.styles.items():
                mark = " (default)" if style == about.default_style else ""
                console.print(f"    {style:<14}{description.about}{mark}", markup=False)
            if about.attention is not None:
                seen, layers = about.attention.references, len(about.attention.layers)
                console.print(f"    attention to {seen} earlier frames in {layers} layers", markup=False)
            if about.splits:
                console.print("    split UNet, for --cache-deep N", markup=False)
            for control in about.controls:
                called = "ControlNet" if control.form == "controlnet" else "T2I-Adapter"
                console.print(f"    {called} {control.name}", markup=False)
            for image in about.images:
                console.print(f"    style image {image.name}", markup=False)
            for lora in about.loras:
                console.print(f"    live LoRA {lora.name}, {lora.default:g} by default", markup=False)


def _examined(folder: Path) -> tuple[Path, DescribedKind | None, str]:
    """Folder, description and "" of a bundle whose files are complete and unchanged; else folder, None and the
    error."""
    try:
        about = read_description(folder)
        _OPENED_BY[about.kind](str(folder))
    except BundleError as error:
        return folder, None, str(error)
    return folder, about, ""


def _to_dict(name: str, folder: Path, about: DescribedKind | None, problem: str) -> dict[str, Any]:
    """A bundle in plain types. For one that cannot be used only `problem` is given."""
    told: dict[str, Any] = {"name": name, "folder": str(folder), "problem": problem or None}
    if about is None:
        return told
    told |= {"kind": about.kind, "licence": about.licence}
    if isinstance(about, BundleFile):
        told["prompt"] = "text" if about.text is not None else "styles"
        told["default_style"] = about.default_style or None
        told["styles"] = {style: description.about for style, description in about.styles.items()}
        told["controls"] = {control.name: control.form for control in about.controls}
        told["images"] = [image.name for image in about.images]
        told["loras"] = {lora.name: lora.default for lora in about.loras}
        told["size"] = list(about.size) if about.size is not None else None
    return told
