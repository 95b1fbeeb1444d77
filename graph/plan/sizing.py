"""Choosing the size at which the networks run, and how the source is fitted into frames of it."""

import math

from warpfuse.engine.bundle_parts import Sizes
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.stages.geometry.framing import Framing, turned


def size_of(
    config: GraphConfig, source: tuple[int, int], sizes: Sizes, fixed: tuple[int, int] | None = None
) -> tuple[tuple[int, int], str]:
    """`choose_size` for a configuration: the frames have the shape of its output, else of the source as it is turned.

    source  (width, height) as the source gives its pictures
    """
    if config.output is not None:
        return choose_size(config.size, config.output, sizes, fixed, what="output")
    return choose_size(config.size, turned(source, config.rotate), sizes, fixed)


def framing_of(config: GraphConfig, source: tuple[int, int], size: tuple[int, int]) -> Framing:
    """How pictures of a source become frames. source, size: (width, height) of its pictures, and in the networks."""
    return Framing(source, size, config.output or size, config.rotate, config.fit)


def choose_size(
    asked: tuple[int, int] | None,
    source: tuple[int, int],
    sizes: Sizes,
    fixed: tuple[int, int] | None = None,
    what: str = "source",
) -> tuple[tuple[int, int], str]:
    """(width, height) in px, and a line for the user that explains it if it is neither the requested nor the source's.

    asked   the requested size, as in `--size`; rounded to the bundle's multiple
    source  size of the source as displayed; without `asked` its aspect is kept, with its long side reduced to the
            bundle's default, and its short side at least the bundle's minimum
    fixed   the only size for which the networks were exported
    what    what `source` is the size of, for the line

    Raises ConfigError for a size below the bundle's minimum, or other than the fixed one.
    """
    if fixed is not None:
        if asked not in (None, fixed):
            raise ConfigError(
                f"size {asked[0]}x{asked[1]}: this bundle was exported for {fixed[0]}x{fixed[1]}. "
                f"Leave --size out, or export it again with --size {asked[0]}x{asked[1]}"
            )
        return fixed, "" if fixed == source else f"{what} is {source[0]}x{source[1]}, running at {fixed[0]}x{fixed[1]}"
    width, height = asked or _fitted(source, sizes)
    size = (_rounded(width, sizes.multiple), _rounded(height, sizes.multiple))
    if min(size) < sizes.minimum:
        raise ConfigError(
            f"size {width}x{height}: this bundle takes {sizes.minimum} pixels or more each way. Give a larger --size"
        )
    if asked is not None and size != asked:
        return (
            size,
            f"size {width}x{height} rounded to {size[0]}x{size[1]}: the networks take multiples of {sizes.multiple}",
        )
    if asked is None and size != source:
        return size, f"{what} is {source[0]}x{source[1]}, running at {size[0]}x{size[1]} (--size changes it)"
    return size, ""


def _fitted(source: tuple[int, int], sizes: Sizes) -> tuple[float, float]:
    scale = min(1.0, sizes.default_long_side / max(source))
    scale = max(scale, sizes.minimum / min(source))  # for narrow sources, and sources below the minimum
    return source[0] * scale, source[1] * scale


def _rounded(length: float, multiple: int) -> int:
    return max(1, math.floor(length / multiple + 0.5)) * multiple
