"""Checking the file of a mask before torch is loaded."""

from warpfuse.stages.errors import MaskError, SourceError
from warpfuse.stages.sources import probe
from warpfuse.stages.sources.schemes import scheme_of


def check_file(of: str) -> None:
    """Raise MaskError for a live source and for a file that cannot be read."""
    if scheme_of(of) not in ("file", "pattern"):
        raise MaskError(f"mask.of {of}: expected a picture, pictures in a row or a video, got a live source")
    try:
        probe(of)
    except SourceError as error:
        raise MaskError(f"mask.of: {error}") from None
