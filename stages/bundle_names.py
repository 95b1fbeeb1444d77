"""What settings ask of a bundle by name: controls, style images, LoRAs."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Protocol

from warpfuse.engine.errors import BadInput


class Named(Protocol):
    """A part of a bundle that settings ask for by its name."""

    @property
    def name(self) -> str:
        """Its name."""


def check_names(
    key: str, asked: Iterable[str], known: Sequence[Named], what: str, option: str, error: type[BadInput]
) -> None:
    """Nothing if a bundle has all that is asked for; else raises `error`.

    key     of the settings: "controls"
    what    one of them: "control"
    option  of `warpfuse export` that puts one into a bundle, NAME being its name: "--control NAME=CONTROLNET"
    """
    names = [one.name for one in known]
    for name in asked:
        if not names:
            raise error(
                f"{key}: {name!r} is asked for, but this bundle has no {what}. Export it again: "
                f"warpfuse export SOURCE {option.replace('NAME', name)} ..."
            )
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
            raise error(f"{key}: no {what} called {name!r}{hint} This bundle has: {', '.join(names)}")
