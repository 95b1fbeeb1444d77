"""Bundles of a small random checkpoint: without style images, and with two, "look" and "mood", of one encoder."""

from support import lora_bundles as make
from support.random_images import write_adapter
from warpfuse.export.diffusion.image_files import ImageSource


def write(folder):
    """Name -> folder."""
    source = make.write_random_checkpoint(folder / "sd15", "sd15")
    look = write_adapter(folder / "look", source)
    mood = write_adapter(folder / "mood", source, "plus", 8, encoder=False)
    encoder = str(look.parent / "image_encoder")
    asked = [ImageSource("look", str(look)), ImageSource("mood", str(mood), encoder)]
    make.export(source, folder / "plain")
    make.export(source, folder / "shown", images=asked)
    return {name: str(folder / name) for name in ("plain", "shown")}
