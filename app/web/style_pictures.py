"""Pictures that are given to the page as styles, kept in one folder under names made of what is in them."""

import hashlib
import io
from pathlib import Path

from PIL import Image, ImageOps
from platformdirs import user_data_path

from warpfuse.engine.files import write_whole
from warpfuse.graph.errors import ConfigError
from warpfuse.stages.diffusion.style_images import read_style_picture

_LONGEST_PX, _MOST_PX = 8192, 640  # of a side: that is taken, and that is kept, which no image encoder exceeds
_THUMB = (192, 192)


class StylePictures:
    """The style images in one folder, by default in the user's data. A name cannot lead to another folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or user_data_path("warpfuse") / "style-pictures"

    def keep(self, data: bytes) -> Path:
        """Save a picture, upright and scaled down. Returns its path.

        Raises ConfigError for data that is no picture, and if the file cannot be written.
        """
        try:
            with Image.open(io.BytesIO(data)) as opened:
                if max(opened.size) > _LONGEST_PX:
                    raise ConfigError(f"a picture has at most {_LONGEST_PX} pixels a side, got {max(opened.size)}")
                picture = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise ConfigError("this is no picture that can be read: give a PNG, JPEG or WebP file") from None
        picture.thumbnail((_MOST_PX, _MOST_PX), Image.Resampling.LANCZOS)
        kept = io.BytesIO()
        picture.save(kept, "PNG")
        file = self._folder / f"{hashlib.sha256(kept.getvalue()).hexdigest()[:24]}.png"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(file, kept.getvalue(), mode=0o600)
        except OSError as error:
            raise ConfigError(f"the picture cannot be kept in {self._folder}: {error.strerror}") from None
        return file

    def holds(self, file: str) -> bool:
        """Whether this file is one of the saved pictures."""
        path = Path(file)
        return path.parent == self._folder and path.is_file()


def small_jpeg(file: str, key: str) -> bytes:
    """A picture as a small JPEG. key: that names the file, for the error. Raises ImageError."""
    picture = ImageOps.fit(read_style_picture(file, key), _THUMB)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return data.getvalue()
