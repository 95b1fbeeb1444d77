"""Settings of the stages of motion, apart from them: a configuration is validated before torch is loaded."""

import math
from functools import cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from warpfuse.stages.parameters import Check, Limits, Mode
from warpfuse.stages.settings import StageSettings

Preset = Literal["ultrafast", "fast", "balanced", "medium"]


class ConfidenceSettings(StageSettings):
    """How trust is made from a flow field and its inverse.

    check         squared  |f + b|^2 <= slope (|f|^2 + |b|^2) + offset      offset in px^2
                  norm     |f + b|   <= slope (|f| + |b|) + offset          offset in px; over-flags fast motion
                  off      no forward-backward check
    slope         of the check above, without unit
    offset        of the check above, at the size the flow is computed at
    photometric   mean |current - warped previous| up to which a pixel is believed, in [0, 1]; 1 switches it off
    softness      trust falls to 0 on the way from `photometric` to (1 + softness) photometric; 0 is a hard edge
    dilate_px     radius by which distrust grows, pixels of the flow's size: flow is wrong around what is covered
    feather_px    radius of the blur that follows, so that no seam shows; up to dilate_px it gives no trust back
    cut_coverage  a frame less of which than this is believed is a scene cut if its colours changed as well, [0, 1]
    cut_colour    distance of the colour histograms from which on they have, [0, 1]
    """

    check: Check = "squared"
    slope: float = Field(0.01, ge=0)
    offset: float = Field(0.5, ge=0)
    photometric: float = Field(0.12, gt=0, le=1)
    softness: float = Field(0.5, ge=0, le=10)
    dilate_px: int = Field(2, ge=0, le=64)
    feather_px: int = Field(2, ge=0, le=64)
    cut_coverage: float = Field(0.2, ge=0, le=1)
    cut_colour: float = Field(0.2, ge=0, le=1)

    def at(self, scale: float) -> "ConfidenceSettings":
        """The same for a flow in pixels of `scale` times the size: what is a length is so much of one there."""
        return self if scale == 1 else _scaled(self, scale)

    @property
    def limits(self) -> Limits:
        """What a pixel is judged by."""
        return Limits(self.check, self.slope, self.offset, self.photometric, self.softness)


@cache
def _scaled(settings: ConfidenceSettings, scale: float) -> ConfidenceSettings:
    feather_px = math.ceil(settings.feather_px * scale)
    lengths = {
        "offset": settings.offset * (scale if settings.check == "norm" else scale * scale),
        "dilate_px": math.ceil(settings.dilate_px * scale),
        "feather_px": max(0, feather_px - 1) if scale < 1 else feather_px,  # trust is brought up again, which blurs it
    }
    return settings.model_copy(update=lengths)


class FlowSettings(StageSettings):
    """Settings of `Flow`.

    preset         of DIS (Kroeger et al. 2016): OpenCV's, or `balanced`: medium with its patches 4 px apart instead of
                   3 and 16 instead of 25 descents, two thirds of the time at the same end-point error
    backward_flow  when the flow from the past to the present is computed too, which is as much work as the flow itself
                   and only there for the trust: `always`, or `doubtful`, where less than 70 % of a frame would be
                   believed without it. Elsewhere `unique_match` tells it: of two places of the present that are
                   matched with one place of the past, the one that fits it less came into view
    long_side      width or height, whichever is more, the flow is computed at when the frame is larger, pixels;
                   None computes it at the frame's own size
    trust          how trust is made, in pixels of the size the flow is computed at
    trust_cell     side of the cells of flow pixels that are judged as one: a latent cell has 8 x 8 pixels of the frame,
                   so not every one has to be known. 1 judges every pixel
    """

    renamed: ClassVar[dict[str, str]] = {"way_back": "backward_flow"}

    preset: Preset = "balanced"
    backward_flow: Literal["always", "doubtful"] = "doubtful"
    long_side: int | None = Field(384, ge=64)
    trust: ConfidenceSettings = ConfidenceSettings()
    trust_cell: int = Field(2, ge=1, le=8)


class AnchorSettings(StageSettings):
    """The frame of a shot that others are tied to, where something is taken from it (`motion/anchor.py`).

    A keyframe is a picture that somebody made of a frame. From that frame on it is the anchor, and it is shown along
    the flow. A cut forgets it.

    coverage  0..1: a frame of which less is trusted than this, seen from the anchor, takes its place
    picture   file of a keyframe: PNG, JPEG or WebP. Where it is transparent, nothing was painted. Empty: none. Given
              once more it is read once more
    frame     file of the frame that it was painted over; empty: it is found in the source
    at        seconds into the source of the frame that it was painted over; none: the frame that is most like it
    weight    0..1: share of the keyframe in the picture where the flow is trusted. 0 is the picture without it
    """

    coverage: float = Field(0.2, ge=0, le=1)
    picture: str = ""
    frame: str = ""
    at: float | None = Field(None, ge=0)
    weight: float = Field(0.95, ge=0, le=1)

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> "AnchorSettings":
        if self.frame and self.at is not None:
            raise ValueError(f"frame {self.frame} and at {self.at:g} both say which frame it is; give one of them")
        return self

    @property
    def files(self) -> frozenset[str]:
        """The files that are read."""
        return frozenset({self.picture, self.frame} - {""}) if self.picture else frozenset()


class WarpSettings(StageSettings):
    """Settings of `Warp`.

    mode       how the picture is read between pixels; a picture pulled again and again goes soft with bilinear
    cell_norm  1 or more: how the trust of a latent cell is made of that of its pixels (`reduce_to_latent`); null
               takes the least of them, and steadies less: cells on the edge of what is covered are left out
    """

    mode: Mode = "sharp"
    cell_norm: Annotated[float, Field(ge=1)] | None = 2.0
