"""The named styles of the embedded bundle, and which style of the teacher each one is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """A name a user types, and where it comes from."""

    name: str
    teacher_index: int  # of the 26 of multistyle26.onnx
    about: str


STYLES: tuple[Style, ...] = (
    Style("engraving", 11, "brown ink lines on ochre and cream paper"),
    Style("starry", 19, "swirling strokes of deep blue with yellow light"),
    Style("watercolour", 14, "pale blue and rose washes under a thin line"),
    Style("ink", 2, "black brush and white paper with a touch of peach"),
    Style("crimson", 20, "dark red and black, like a room lit by embers"),
    Style("pastel", 12, "soft chalk in lavender and yellow"),
    Style("mosaic", 15, "pale tiles in pink, white and orange, outlined"),
    Style("woodcut", 24, "navy marks cut into cream paper"),
    Style("pencil", 8, "coloured pencil in cyan, magenta and yellow on white"),
    Style("oil", 5, "bold patches of orange, red and blue"),
    Style("glass", 13, "stained glass in green, red and gold between black leads"),
)
DEFAULT_STYLE = "engraving"


def one_hot(index: int, count: int = len(STYLES)) -> list[float]:
    """The vector of a style: 1 at its place. A caller scales it by the strength or adds vectors with weights."""
    return [1.0 if i == index else 0.0 for i in range(count)]
