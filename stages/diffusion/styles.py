"""Prompts of named styles: "ink", or "ink:2, oil" for a blend of two to one."""

import difflib
from collections.abc import Collection, Mapping, Sequence

from warpfuse.stages.errors import StyleError


def style_weights(prompt: str, styles: Collection[str], default: str) -> dict[str, float]:
    """Shares of the styles in a prompt, in [0, 1] and of sum 1. An empty prompt is the style `default`.

    prompt  "name", or "name:weight, name:weight, ..." with weights >= 0, not all 0; the default weight is 1

    Raises StyleError: an unknown name (the error lists the known ones), or a weight that is no number >= 0.
    """
    parts = [part.strip() for part in prompt.split(",") if part.strip()] or [default]
    weighted = [_weighted(part, styles) for part in parts]
    total = sum(weight for _, weight in weighted)
    if not total > 0:
        raise StyleError(f"prompt {prompt!r}: the weights add up to {total:g}, expected more than 0")
    shares = dict.fromkeys((name for name, _ in weighted), 0.0)
    for name, weight in weighted:
        shares[name] += weight / total
    return shares


def style_vector(prompt: str, styles: Mapping[str, Sequence[float]], default: str) -> tuple[float, ...]:
    """The style vector of a prompt (`style_weights`): the weighted mean of its styles' vectors. Raises StyleError."""
    shares = style_weights(prompt, styles, default)
    length = len(next(iter(styles.values())))
    return tuple(sum(styles[name][i] * share for name, share in shares.items()) for i in range(length))


def _weighted(part: str, styles: Collection[str]) -> tuple[str, float]:
    name, colon, number = part.partition(":")
    name = name.strip().lower()
    if name not in styles:
        nearest = difflib.get_close_matches(name, styles, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise StyleError(f"no style called {name!r}{hint} This bundle has: {', '.join(styles)}")
    try:
        weight = float(number) if colon else 1.0
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise StyleError(f"style {name!r}: weight {number.strip()!r} is no number from 0 up, as in '{name}:0.5'")
    return name, weight
