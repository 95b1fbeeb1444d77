"""A table of the keys that may change while frames flow: type, bounds and description of each.

It is derived from the model of the configuration, so a user interface shows new keys without further work.
"""

import inspect
import re
import types
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.crossfade import LIVE
from warpfuse.stages import added_stages
from warpfuse.stages.controls.settings import KINDS, ControlSettings
from warpfuse.stages.settings import StageSettings

Kind = Literal["number", "whole", "switch", "choice", "text", "pair"]

_ENTRY = re.compile(r"^(?P<names>\w+(?:, \w+)*) {2,}(?P<about>\S.*)$")


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the configuration.

    key      its path, such as stages.fuse.weight
    kind     number; whole: an integer; switch: on or off; choice; text; pair: two numbers
    about    its description in the docstring of its model
    least, most  bounds of a number; None: unbounded
    choices  the values of a choice
    none     the key may also be None
    """

    key: str
    kind: Kind
    about: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    none: bool = False


def live_keys() -> list[Key]:
    """All single-valued keys that may change while frames flow. `loras`, `controls` and `images` depend on the bundle
    and are not among them."""
    fields = {name: field for name, field in GraphConfig.model_fields.items() if name in LIVE}
    keys = list(_of_fields(fields, _told(GraphConfig), ""))
    for name, module in added_stages().items():
        keys += _of_model(module.Settings, f"stages.{name}.")
    return keys


def control_keys() -> dict[str, list[Key]]:
    """The keys under `controls.NAME` that may change while frames flow, by the kind of control."""
    found = {}
    for kind, settings in KINDS.items():
        about = _told(ControlSettings) | _told(settings)
        fields = {name: field for name, field in settings.model_fields.items() if name not in settings.fixed}
        found[kind] = list(_of_fields(fields, about, ""))
    return found


def run_keys() -> dict[str, str]:
    """Descriptions of the top-level keys that are fixed when a run is opened, by key."""
    return {name: about for name, about in _told(GraphConfig).items() if name not in LIVE}


def _of_model(model: type[StageSettings], prefix: str) -> Iterator[Key]:
    yield from _of_fields(model.model_fields, _told(model), prefix)


def _of_fields(fields: dict[str, FieldInfo], told: dict[str, str], prefix: str) -> Iterator[Key]:
    for name, field in fields.items():
        kind, none = _without_none(field.annotation)
        if isinstance(kind, type) and issubclass(kind, StageSettings):
            yield from _of_model(kind, f"{prefix}{name}.")
            continue
        shape = _shape(kind)
        if shape is None:
            continue
        bounds = [rule for rule in field.metadata if hasattr(rule, "__dict__") or hasattr(rule, "__slots__")]
        least = next(
            (v for rule in bounds for v in (getattr(rule, "ge", None), getattr(rule, "gt", None)) if v is not None),
            None,
        )
        most = next(
            (v for rule in bounds for v in (getattr(rule, "le", None), getattr(rule, "lt", None)) if v is not None),
            None,
        )
        choices = tuple(str(one) for one in get_args(kind)) if shape == "choice" else ()
        yield Key(prefix + name, shape, told.get(name, ""), least, most, choices, none)


def _without_none(kind: Any) -> tuple[Any, bool]:
    """The type without `Annotated` and without None, and whether None was in it.

    Of a union of one Literal with other types the Literal is returned.
    """
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in (Union, types.UnionType):
        return kind, False
    others = [one for one in get_args(kind) if one is not type(None)]
    if len(others) != 1:
        words = [word for word, _ in map(_without_none, others) if get_origin(word) is Literal]
        return (words[0] if len(words) == 1 else kind), False
    return _without_none(others[0])[0], True


def _shape(kind: Any) -> Kind | None:
    if get_origin(kind) is Literal:
        return "choice"
    if get_origin(kind) is tuple and get_args(kind) == (float, float):
        return "pair"
    plain: dict[Any, Kind] = {bool: "switch", int: "whole", float: "number", str: "text"}
    return plain.get(kind)


def _told(model: type) -> dict[str, str]:
    """Descriptions in the docstrings of a model and those it derives from, by key: lines `name   text` and the indented
    lines that follow them. Of a list in the text, `word   text`, each entry follows a semicolon.
    """
    told: dict[str, str] = {}
    for one in reversed(model.__mro__):
        told |= _told_by(vars(one).get("__doc__") or "", getattr(model, "model_fields", {}))
    return told


def _told_by(text: str, fields: Collection[str]) -> dict[str, str]:
    told: dict[str, list[str]] = {}
    names: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        found = _ENTRY.match(line)
        if found is not None and all(name in fields for name in found["names"].split(", ")):
            names = found["names"].split(", ")
            told.update({name: [_listed(found["about"])] for name in names})
        elif names and line.startswith("  "):
            for name in names:
                told[name].append(_listed(line.strip()))
        else:
            names = []
    return {name: _for_users(" ".join(parts)) for name, parts in told.items()}


def _listed(text: str) -> str:
    return re.sub(r"^(\w+) {2,}(?=\S)", r"; \1: ", text)


def _for_users(text: str) -> str:
    """Without references to code, which a docstring has in brackets."""
    text = re.sub(r" \(`[\w/.]+`\)", "", " ".join(text.split()))
    return text.replace(" ; ", "; ").removeprefix("; ")
