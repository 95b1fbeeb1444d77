"""Settings of the mask, apart from the stages: a configuration is validated before torch is loaded."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from warpfuse.stages.settings import StageSettings

MaskKind = Literal["off", "network", "file", "map"]
_KINDS: tuple[str, ...] = get_args(MaskKind)


class MaskSettings(StageSettings):
    """Which parts of the picture are styled.

    kind        off      the picture in whole
                network  what a network finds in the frame
                file     drawn: a picture, or pictures in a row or a video, whose n-th frame is for the n-th of the
                         source and whose last one stays; white is styled
                map      the map of a control of the run, whatever its scale
    of          network: name or folder of a bundle of kind `map`. file: its path. map: name of the control, or a bundle
                as of a network. Alone it is of a network
    invert      the rest is styled instead
    feather_px  how far the edge is blurred each way, pixels of the frame
    steady      0..1: share of the mask of the frame before, warped, where the flow is trusted, for a network's edge
                jitters. Without fusion there is no flow, and each frame has its own mask
    amount      0..1: 1 holds the mask, 0 lays it off: the picture is styled in whole

    All but the first two are live.
    """

    kind: MaskKind = "off"
    of: str = ""
    invert: bool = False
    feather_px: int = Field(3, ge=0, le=64)
    steady: float = Field(0.7, ge=0, le=1)
    amount: float = Field(1.0, ge=0, le=1)

    @property
    def active(self) -> bool:
        """Whether there is one."""
        return self.kind != "off"

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
    """The keys that a short form stands for: `person`, `file:mask.png`, `map:canny`, `off`. Anything else as it is."""
    if value is False or value == "off":  # YAML reads off as false
        return {"kind": "off", "of": ""}
    if not isinstance(value, str):
        return value
    kind, colon, of = value.partition(":")
    return {"kind": kind, "of": of} if colon and kind in _KINDS else {"kind": "network", "of": value}


Mask = Annotated[MaskSettings, BeforeValidator(in_keys)]
"""The settings, or a bundle by its name."""
