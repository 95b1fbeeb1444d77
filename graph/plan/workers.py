"""The key `workers` of a configuration: the name of a placement, or workers and their stages (`placement.py`)."""

import difflib
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag

from warpfuse.stages.settings import StageSettings

TCP = r"tcp://(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}"
TCP_OR_NONE = f"^({TCP})?$"

_SCHEMES = ("auto", "one", "stages")
NAMED = "by name"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


class Place(StageSettings):
    """A worker. stages: the names of the stages it runs; host: its address, if it is on another host."""

    stages: tuple[str, ...] = Field(min_length=1)
    host: str = Field("", pattern=TCP_OR_NONE)


def _read(value: Any) -> Any:
    if isinstance(value, str):
        if value not in _SCHEMES:
            near = difflib.get_close_matches(value, _SCHEMES, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_SCHEMES)}, or names with their stages"
            raise ValueError(f"{value!r} is no placement; {hint}")
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError(f"expected one of {', '.join(_SCHEMES)}, or names with their stages, got {value!r}")
    for name in value:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a worker: letters, digits, _ and -, 32 at most")
    return {name: {"stages": place} if isinstance(place, list | tuple) else place for name, place in value.items()}


Workers = Annotated[
    Annotated[str, Tag("scheme")] | Annotated[dict[str, Place], Tag(NAMED)],
    Discriminator(lambda value: "scheme" if isinstance(value, str) else NAMED),
    BeforeValidator(_read),
]
