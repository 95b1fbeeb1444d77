"""Settings of the mask. They are in a module of their own so that a configuration can be validated before torch is
loaded."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from warpfuse.stages.settings import StageSettings

MaskKind = Literal["off", "network", "file", "map"]
Rest = Literal["source", "background", "transparent"]
_KINDS: tuple[str, ...] = get_args(MaskKind)


class MaskSettings(StageSettings):
    """Which parts of the picture are styled.

    kind        off      the whole picture
                network  what a network finds in the frame
                file     where a drawing is white: a picture, or an image sequence or a video, whose n-th frame is for
                         the n-th frame of the source, and its last frame for all later ones
                map      the map of a control of the run, whatever its scale
    of          network: name or folder of a bundle of kind `map`. file: its path. map: name of the control, or a bundle
                as for network. If `kind` is missing, it is network
    invert      style the rest instead
    feather_px  how far the edge is blurred to each side, pixels of the frame
    steady      0..1: share of the warped mask of the frame before where the flow is trusted; keeps edges from
                jittering. Without fusion there is no flow, and the mask is not smoothed
    amount      0..1: 0 switches the mask off, so that the whole picture is styled

    rest        what is shown where the mask is 0: the source, the colour `background` of the run, or nothing, by alpha,
                which only some sinks hold

    All but `kind` and `of` are live, and `rest` but for transparent.
    """

    kind: MaskKind = "off"
    of: str = ""
    invert: bool = False
    feather_px: int = Field(3, ge=0, le=64)
    steady: float = Field(0.7, ge=0, le=1)
    amount: float = Field(1.0, ge=0, le=1)
    rest: Rest = "source"

    @property
    def active(self) -> bool:
        """There is a mask."""
        return self.kind != "off"

    @property
    def transparent(self) -> bool:
        """Pictures that are shown have an alpha channel."""
        return self.active and self.rest == "transparent"

    @model_validator(mode="before")
    @classmethod
    def _of_a_network(cls, raw: Any) -> Any:
        return {"kind": "network", **raw} if isinstance(raw, dict) and raw.get("of") else raw

    @model_validator(mode="after")
    def _complete(self) -> "MaskSettings":
        if self.active and not self.of:
            raise ValueError(f"kind {self.kind} needs `of`: {_OF[self.kind]}")
        return self


_OF = {"network": "a bundle of kind map, as in of: person", "file": "a picture or a video, as in of: mask.png",
       "map": "a control of the run, as in of: canny"}  # fmt: skip


def in_keys(value: Any) -> Any:
    """The keys for a short form: `person`, `file:mask.png`, `map:canny`, `off`. Any other value is returned."""
    if value is False or value == "off":  # YAML reads off as false
        return {"kind": "off", "of": ""}
    if not isinstance(value, str):
        return value
    kind, colon, of = value.partition(":")
    return {"kind": kind, "of": of} if colon and kind in _KINDS else {"kind": "network", "of": value}


Mask = Annotated[MaskSettings, BeforeValidator(in_keys)]
"""The settings, or a short form (`in_keys`)."""
