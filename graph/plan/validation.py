"""Raw keys to settings, and what is wrong with those that are none: the key, the range, the nearest right spelling."""

import difflib
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.workers import NAMED
from warpfuse.stages.controls.settings import KINDS
from warpfuse.stages.diffusion.settings import LISTED, WORD
from warpfuse.stages.settings import StageSettings

S = TypeVar("S", bound=StageSettings)


def validated(model: type[S], raw: Any, where: str = "") -> S:
    """Raw keys to settings of this kind.

    Raises ConfigError that names the key, the range and, for an unknown key, the nearest right spelling.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        prefix = f"{where}: " if where else ""
        raise ConfigError(prefix + _explain(error, model)) from None


def _explain(error: ValidationError, model: type[StageSettings]) -> str:
    detail = error.errors()[0]
    path = [str(part) for part in detail["loc"] if part not in (NAMED, LISTED, WORD)]
    kind = path.pop(2) if path[:1] == ["controls"] and path[2:3] and path[2] in KINDS else ""  # the union puts it there
    key = ".".join(path)
    if detail["type"] == "extra_forbidden":
        known = sorted(KINDS[kind].model_fields) if kind else _keys_at(path[:-1], model)
        nearest = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {'.'.join([*path[:-1], nearest[0]])!r}?" if nearest else f"known: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    text = str(detail["msg"]).removeprefix("Value error, ")
    got = "" if detail["type"] == "value_error" else f", got {detail['input']!r}"
    return f"{key}: {text[:1].lower() + text[1:]}{got}" if key else f"{text}{got}"


def _keys_at(path: list[str], model: Any) -> list[str]:
    for key in path:
        if get_origin(model) is dict:  # by names of the user's
            model = get_args(model)[1]
            continue
        field = model.model_fields.get(key)
        if field is None or not (hasattr(field.annotation, "model_fields") or get_origin(field.annotation) is dict):
            return []
        model = field.annotation
    if not hasattr(model, "model_fields"):
        return []
    return sorted([*model.model_fields, *model.short_forms])
