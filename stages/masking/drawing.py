"""What a drawn mask may be read from: told before torch is loaded."""

from warpfuse.stages.errors import MaskError, SourceError
from warpfuse.stages.sources import probe
from warpfuse.stages.sources.schemes import scheme_of


def check_file(of: str) -> None:
    """Raise MaskError for a mask that cannot be read, or that nobody can wait for."""
    if scheme_of(of) not in ("file", "pattern"):
        raise MaskError(f"mask.of {of}: expected a picture, pictures in a row or a video, got a live source")
    try:
        probe(of)
    except SourceError as error:
        raise MaskError(f"mask.of: {error}") from None
