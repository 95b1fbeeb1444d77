"""A picture that a setting names: read from its file, upright, and fitted into the frame.

No torch: mistakes are told before that is loaded.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from warpfuse.engine.errors import BadInput
from warpfuse.stages.geometry.framing import Framing


def read_picture(path: Path, key: str, error: type[BadInput]) -> Image.Image:
    """The picture, turned as its EXIF says, of at most 8 bits a channel.

    key    that names the file, for the error
    error  is raised where there is no such file, or no picture in it
    """
    try:
        with Image.open(path.expanduser()) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as problem:
        reason = getattr(problem, "strerror", None) or "it holds no picture that can be read"
        raise error(f"{key}: {path}: {reason}. Give a PNG, JPEG or WebP file") from None
    if image.mode.startswith("I"):  # gray of 16 bits, which a conversion would cut off at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def fitted(image: Image.Image, framing: Framing) -> Image.Image:
    """The picture as a frame of the networks' size, as a source of its shape would be. Bars are black, or transparent.

    Pillow weighs colours by how opaque they are.
    """
    over = framing.over(image.size)
    content = over.content(over.size)
    inner = image.resize((content.width, content.height), Image.Resampling.LANCZOS, box=over.used(image.size))
    if inner.size == over.size:
        return inner
    frame = Image.new(image.mode, over.size)
    frame.paste(inner, (content.left, content.top))
    return frame
