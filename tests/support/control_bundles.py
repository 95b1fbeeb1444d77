"""Bundles of a small random checkpoint: without controls, and with a ControlNet "canny" and a T2I-Adapter "sketch"."""

from support import lora_bundles as make
from support.random_controls import write_adapter, write_controlnet
from warpfuse.export.diffusion.control_files import ControlSource


def write(folder):
    """Name -> folder."""
    source = make.write_random_checkpoint(folder / "sd15", "sd15")
    asked = [
        ControlSource("canny", "controlnet", str(write_controlnet(folder / "canny", source))),
        ControlSource("sketch", "adapter", str(write_adapter(folder / "sketch", source))),
    ]
    make.export(source, folder / "plain")
    make.export(source, folder / "steered", controls=asked)
    return {name: str(folder / name) for name in ("plain", "steered")}
