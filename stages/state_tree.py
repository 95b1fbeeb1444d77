"""The state of a stage as a tree, whose leaves are its tensors and the stamps of the frames that it remembers.

A graph on a card is captured for one form of a state. The same launches then serve every state of this form: the leaves
are put in the place of those it was captured with (`loop.py`).

Dicts, lists, tuples, frames and every `Subtree` are followed. Anything else is hashable and belongs to the form. An
object that occurs twice is one object, in the form and in what is made of it.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from warpfuse.stages.frame import Frame, Stamp

Path = tuple[Hashable, ...]
T = TypeVar("T")

_OF_FRAME = "of the frame"  # a place beside those of the tensors


@runtime_checkable
class Subtree(Protocol):
    """An object with leaves of its own."""

    def parts(self) -> Mapping[str, Any]:
        """What is followed, by name."""

    def rest(self) -> Hashable:
        """What else decides which work a call launches."""

    def made_of(self, parts: Mapping[str, Any]) -> Any:
        """A new object of other parts with the same rest."""


class Fields:
    """Makes a dataclass a `Subtree` of all its fields."""

    __slots__ = ()

    def parts(self) -> Mapping[str, Any]:
        """See `Subtree`."""
        return {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]

    def rest(self) -> Hashable:
        """See `Subtree`."""
        return ()

    def made_of(self, parts: Mapping[str, Any]) -> Any:
        """See `Subtree`."""
        return replace(self, **parts)  # type: ignore[type-var]


@dataclass(slots=True)
class Leaves:
    """What `leaves_of` finds.

    tensors  by the place where each occurs first
    stamps   by the number of their frame, likewise in the order of the places
    form     equal for two trees if the leaves of one can be put into the other
    """

    tensors: dict[Path, Tensor] = field(default_factory=dict)
    stamps: dict[int, Stamp] = field(default_factory=dict)
    form: Hashable = None


def leaves_of(tree: Any) -> Leaves:
    """The leaves of a tree."""
    found, numbers, met = Leaves(), dict[int, int](), dict[int, int]()

    def walk(x: Any, path: Path) -> Hashable:
        if isinstance(x, Tensor):
            if id(x) not in numbers:
                numbers[id(x)] = len(numbers)
                found.tensors[path] = x
            return Tensor, numbers[id(x)], x.dtype, x.shape
        if isinstance(x, Stamp):
            found.stamps.setdefault(x.seq, x)
            number = list(found.stamps).index(x.seq)
            # How a frame that is only read was made is no part of the form.
            return (Stamp, number, x.hold, x.discontinuity) if path[-1] == "stamp" else (Stamp, number)
        parts = _parts(x)
        if parts is None:
            return x  # type: ignore[no-any-return]
        if id(x) in met:
            return "again", met[id(x)]
        met[id(x)] = len(met)
        rest = x.rest() if isinstance(x, Subtree) else ()
        return type(x), rest, tuple((name, walk(part, (*path, name))) for name, part in parts.items())

    found.form = walk(tree, ())
    return found


def with_leaves(tree: T, tensor: Callable[[Tensor], Tensor], stamp: Callable[[Stamp], Stamp] = lambda x: x) -> T:
    """A tree of the same form in new objects. tensor, stamp: from a leaf of the old one to that of the new one."""
    made: dict[int, Any] = {}

    def walk(x: Any) -> Any:
        if isinstance(x, Tensor):
            return tensor(x)
        if isinstance(x, Stamp):
            return stamp(x)
        parts = _parts(x)
        if parts is None:
            return x
        if id(x) not in made:
            made[id(x)] = _made(x, {name: walk(part) for name, part in parts.items()})
        return made[id(x)]

    return walk(tree)  # type: ignore[no-any-return]


def _parts(x: Any) -> Mapping[Any, Any] | None:
    match x:
        case dict():
            return x
        case list() | tuple():
            return dict(zip(getattr(x, "_fields", range(len(x))), x, strict=True))
        case Frame():
            return {_OF_FRAME: x.stamp, **x.tensors}
        case Subtree():
            return x.parts()
        case _:
            return None


def _made(x: Any, parts: dict[Any, Any]) -> Any:
    match x:
        case dict():
            return parts
        case list():
            return [*parts.values()]
        case tuple():
            return type(x)(**parts) if hasattr(x, "_fields") else tuple(parts.values())
        case Frame():
            return type(x).of(parts.pop(_OF_FRAME), parts)
        case _:
            return x.made_of(parts)
