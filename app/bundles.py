"""`warpfuse bundles`: what can be asked for by name."""

from collections.abc import Callable

from rich.console import Console

from warpfuse.engine.bundle import (
    find_bundles,
    load_autoencoder_bundle,
    load_bundle,
    load_flow_bundle,
    read_description,
)
from warpfuse.engine.bundle_file import BundleFile
from warpfuse.engine.errors import BundleError

_OPENED_BY: dict[str, Callable[[str], object]] = {
    "latent-diffusion": load_bundle,
    "flow": load_flow_bundle,
    "autoencoder": load_autoencoder_bundle,
}


def bundles() -> None:
    """The bundles that can be asked for by name, and their styles."""
    console = Console()
    for name, folder in find_bundles().items():
        try:
            about = read_description(folder)
            _OPENED_BY[about.kind](str(folder))  # every file is there, and what it was
        except BundleError as error:
            console.print(f"{name}  cannot be used: {error}", markup=False)
            continue
        console.print(f"{name}  {about.kind}, licence {about.licence}, {folder}", markup=False)
        if isinstance(about, BundleFile):
            for style, description in about.styles.items():
                mark = " (default)" if style == about.default_style else ""
                console.print(f"    {style:<14}{description.about}{mark}", markup=False)
            if about.attention is not None:
                seen, layers = about.attention.references, len(about.attention.layers)
                console.print(f"    attention to {seen} earlier frames in {layers} layers", markup=False)
            for lora in about.loras:
                console.print(f"    live LoRA {lora.name}, {lora.default:g} by default", markup=False)
