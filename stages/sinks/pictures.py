"""An image sequence as a sink: `out/%04d.png`, also .jpg, .webp, .tif and .bmp."""

import logging
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path

import cv2

from warpfuse.stages.errors import SinkError
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.beside import unheld
from warpfuse.stages.sinks.target import Target, require_writable
from warpfuse.stages.sources.numbered import Numbered
from warpfuse.stages.sources.pictures import holds
from warpfuse.stages.sources.schemes import path_of
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("file",)

_LOG = logging.getLogger(__name__)
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_WITH_ALPHA = (".png", ".webp", ".tif", ".tiff")
_RANGES = {"start": (0, 10**9), "quality": (1, 100)}


def serves(url: str) -> bool:
    """The name has the ending of an image file."""
    return path_of(url.partition("#")[0]).suffix.lower() in _ENDINGS


def carries_alpha(url: str) -> bool:
    """The format of the pictures has an alpha channel."""
    return path_of(url.partition("#")[0]).suffix.lower() in _WITH_ALPHA


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError if the sequence cannot be written.

    That is: a name without a number, an unknown setting, a folder that cannot be written, existing pictures of these
    names, or names that belong to the source's sequence.
    """
    row = WrittenSequence.parse(url)
    folder = row.names.folder
    if source is not None and holds(source, row.names.path(row.start)):
        raise SinkError(f"{url}: its pictures would be part of the source, {source}. Choose another folder.")
    try:
        there = list(row.names.existing().values()) if folder.is_dir() else []
    except OSError as error:
        raise SinkError(f"{url}: the folder {folder} cannot be read ({error.strerror}). Choose another.") from None
    if there:
        told = f"{len(there)} pictures, {there[0].name} to {there[-1].name}," if len(there) > 1 else there[0].name
        verb = "are" if len(there) > 1 else "is"
        raise SinkError(
            f"{url}: {told} {verb} there already, and old pictures must not mix with new ones."
            " Choose another folder or name, or remove them."
        )
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    require_writable(folder / row.names.path(row.start).name, None)


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> "PicturesSink":
    """Open the sequence. The folder is made if it is missing. Raises SinkError.

    `check` has been called before the run. So existing pictures are of this run, whose process was started again. With
    a file as the source they are written again; with a live source the sequence continues after them.
    """
    row = WrittenSequence.parse(url)
    try:
        row.names.folder.mkdir(parents=True, exist_ok=True)
        there = max(row.names.existing(), default=row.start - 1) if info.live else row.start - 1
    except OSError as error:
        raise SinkError(f"{url}: no writing to the folder {row.names.folder} ({error.strerror}).") from None
    sink = PicturesSink(replace(row, start=max(row.start, there + 1)), size, info.alpha)
    if beside := unheld(sound_from, info):
        sink.notes.append(f"{row.names.folder}: left out, pictures cannot hold it: {'; '.join(beside)}")
    return sink


@dataclass(frozen=True, slots=True)
class WrittenSequence:
    """The settings in the address.

    names    names of the pictures
    start    number of the first picture
    quality  quality of JPEG and WebP, 1 to 100
    """

    names: Numbered
    start: int = 0
    quality: int = 95

    @classmethod
    def parse(cls, url: str) -> "WrittenSequence":
        """Parse `folder/%04d.png#start=1,quality=90`. Raises SinkError."""
        base, _, settings = url.partition("#")
        path = path_of(base)
        names = Numbered.parse(path)
        if names is None:
            example = path.with_name(f"{path.stem}_%04d{path.suffix}")
            raise SinkError(f"{url}: pictures in a row have a number in their names. Try: {example}")
        row = cls(names)
        for part in filter(None, settings.split(",")):
            row = row._with(url, *part.partition("=")[::2])
        return row

    def _with(self, url: str, key: str, value: str) -> "WrittenSequence":
        known = [field.name for field in fields(self) if field.name in _RANGES]
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known are {' and '.join(known)}."
            raise SinkError(f"{url}: '{key}' is not understood. {hint} Write, for example, out/%04d.png#start=1.")
        least, most = _RANGES[key]
        if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
            raise SinkError(f"{url}: {key} is a whole number from {least} to {most}, not '{value}'.")
        return replace(self, start=int(value)) if key == "start" else replace(self, quality=int(value))


class PicturesSink:
    """Writes each frame as one picture, numbered without gaps. Times are not kept.

    A picture gets its name when it is complete. The pictures of a failed run stay, since each is useful by itself.
    """

    def __init__(self, row: WrittenSequence, size: tuple[int, int], alpha: bool = False) -> None:
        self.notes: list[str] = []
        self._row, self._size, self._alpha = row, size, alpha
        self._frames = 0
        self._closed = False

    def write(self, frame: RawFrame) -> None:
        """Write one picture, uint8 RGB or RGBA of the sink's size. Raises SinkLost when the disk is full."""
        width, height = self._size
        path = self._row.names.path(self._row.start + self._frames)
        channels = 4 if self._alpha else 3
        if frame.rgb.shape != (height, width, channels):
            raise ValueError(f"{path}: frames of {height}x{width}x{channels} were agreed on, got {frame.rgb.shape}")
        _, coded = cv2.imencode(
            path.suffix, frame.rgb[:, :, [2, 1, 0, 3][:channels]], _options(path, self._row.quality)
        )
        target = Target(path)
        try:
            target.part.write_bytes(coded.tobytes())
            target.keep(sync=False)
        except OSError as error:
            raise target.lost(error, self._frames) from None
        self._frames += 1

    def close(self, complete: bool) -> None:
        """End the sequence. A second call does nothing. Raises SinkError when no frame was written."""
        if self._closed:
            return
        self._closed = True
        folder = self._row.names.folder
        if not self._frames:
            with suppress(OSError):
                folder.rmdir()  # if it is empty
            if complete:
                raise SinkError(f"{folder}: no picture written, no frame arrived. Is the source empty?")
        elif not complete:
            _LOG.warning("%s: the run failed; the %d pictures it made are kept", folder, self._frames)


def _options(path: Path, quality: int) -> list[int]:
    """OpenCV's options for a picture. JPEG is written without chroma subsampling."""
    if path.suffix.lower() == ".webp":
        return [cv2.IMWRITE_WEBP_QUALITY, quality]
    if path.suffix.lower() in (".jpg", ".jpeg"):
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        return [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return []
