"""Style images, which are pictures that the UNet takes as prompts: their settings, and reading their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from warpfuse.engine.bundle_parts import IMAGE_LAYERS, IMAGE_SCALE_LIMIT, StyleImage
from warpfuse.stages.bundle_names import check_names
from warpfuse.stages.errors import ImageError
from warpfuse.stages.settings import StageSettings

if TYPE_CHECKING:
    from PIL.Image import Image

Scale = Annotated[float, Field(ge=0, le=IMAGE_SCALE_LIMIT)]


class StyleImageSettings(StageSettings):
    """A picture as a prompt, and its scale.

    picture  file of the picture, of which the centre square is used
    scale    0..2: how strongly it counts; 0 switches it off
    style    the same for the layers that determine the style; none: `scale`
    layout   the same for the layers that determine the layout; none: `scale`
    """

    picture: str = ""
    scale: Scale = 0.6
    style: Scale | None = None
    layout: Scale | None = None

    @property
    def scales(self) -> tuple[float, ...]:
        """The scale of each of `IMAGE_LAYERS`."""
        own = {"style": self.style, "layout": self.layout}
        found = (own.get(group) for group in IMAGE_LAYERS)
        return tuple(self.scale if scale is None else scale for scale in found)


def images_in_full(images: Any) -> Any:
    """Short forms as settings: a text is the picture, a number the scale, as in {"look": "ink.png"}, {"look": 0.5}."""
    if not isinstance(images, Mapping):
        return images
    return {name: _spelled_out(value) for name, value in images.items()}


def _spelled_out(value: Any) -> Any:
    if isinstance(value, str):
        return {"picture": value}
    return {"scale": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


ImageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
StyleImages = Annotated[dict[ImageName, StyleImageSettings], BeforeValidator(images_in_full)]
"""The style images of a run by their names in the bundle."""


def check_images(asked: Mapping[str, StyleImageSettings], known: Sequence[StyleImage]) -> None:
    """Raise ImageError for a name that the bundle does not have, and for an image without a picture."""
    check_names("images", asked, known, "style image", "--style-image NAME=IPADAPTER", ImageError)
    for name, settings in asked.items():
        if not settings.picture:
            raise ImageError(f"images.{name}: no picture yet: give images.{name}.picture, a PNG, JPEG or WebP file")


def check_pictures(asked: Mapping[str, StyleImageSettings]) -> None:
    """Raise ImageError for a file without a picture."""
    for name, settings in asked.items():
        read_style_picture(settings.picture, f"images.{name}.picture")


def read_style_picture(file: str, key: str) -> "Image":
    """Read a picture, turned upright, RGB. key: the key that names the file, for errors. Raises ImageError."""
    from warpfuse.stages.geometry.picture_file import read_picture  # imported here, since most runs have no style image

    return read_picture(Path(file), key, ImageError).convert("RGB")
