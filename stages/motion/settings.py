"""Settings of the motion stages. They have a file of their own, so that they are validated before torch is loaded."""

import math
from functools import cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from warpfuse.stages.parameters import Check, Cut, Limits, Mode
from warpfuse.stages.settings import StageSettings

Preset = Literal["ultrafast", "fast", "balanced", "medium"]


class ConfidenceSettings(StageSettings):
    """Settings of the trust, which is made of a flow f and the backward flow b.

    check         squared  |f + b|^2 <= slope (|f|^2 + |b|^2) + offset, which is in px^2
                  norm     |f + b| <= slope (|f| + |b|) + offset, which is in px; distrusts too much fast motion
                  off      no forward-backward check
    slope         slope of the check, without unit
    offset        offset of the check, at the size at which the flow is computed
    photometric   mean |current - warped previous| up to which a pixel is trusted fully, in [0, 1]; 1 switches it off
    softness      the trust falls linearly to 0 between `photometric` and (1 + softness) photometric; 0: a hard edge
    dilate_px     radius by which low trust is dilated, pixels at the flow's size: the flow is wrong around occlusions
    feather_px    radius of the blur after it, which hides seams; up to dilate_px it raises no pixel's trust
    cut_coverage  a frame of which a smaller share is trusted is a cut if its colours have changed as well, [0, 1]
    cut_colour    distance of the colour histograms from which on colours have changed, [0, 1]
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
        """These settings for a flow at `scale` times the size: lengths are scaled."""
        return self if scale == 1 else _scaled(self, scale)

    @property
    def limits(self) -> Limits:
        """The thresholds for a pixel."""
        return Limits(self.check, self.slope, self.offset, self.photometric, self.softness)

    @property
    def cut(self) -> Cut:
        """The thresholds for a cut."""
        return Cut(self.cut_coverage, self.cut_colour)


@cache
def _scaled(settings: ConfidenceSettings, scale: float) -> ConfidenceSettings:
    feather_px = math.ceil(settings.feather_px * scale)
    lengths = {
        "offset": settings.offset * (scale if settings.check == "norm" else scale * scale),
        "dilate_px": math.ceil(settings.dilate_px * scale),
        "feather_px": max(0, feather_px - 1) if scale < 1 else feather_px,  # upscaling the trust later blurs it too
    }
    return settings.model_copy(update=lengths)


class FlowSettings(StageSettings):
    """Settings of `Flow`.

    preset         preset of DIS (Kroeger et al. 2016): OpenCV's, or `balanced`, which is medium with patches 4 px apart
                   instead of 3 and 16 descents instead of 25: two thirds of the time with the same end-point error
    backward_flow  when the flow from the past to the present is computed as well. It is used for the trust only, and
                   takes as long as the flow. `always`; or `doubtful`: for frames of which less than 70 % would be
                   trusted without it. Other frames are checked for double matches: of two pixels that are matched
                   with one place of the past, the one that fits it less has just come into view
    long_side      longer side at which the flow is computed for larger frames, pixels; none: the frame's own size
    trust          settings of the trust, in pixels at the size at which the flow is computed
    trust_cell     side of the cells of flow pixels that share one trust value; 1: every pixel has its own. A latent
                   cell has 8 x 8 pixels of the frame, so a coarser trust is enough
    """

    renamed: ClassVar[dict[str, str]] = {"way_back": "backward_flow"}

    preset: Preset = "balanced"
    backward_flow: Literal["always", "doubtful"] = "doubtful"
    long_side: int | None = Field(384, ge=64)
    trust: ConfidenceSettings = ConfidenceSettings()
    trust_cell: int = Field(2, ge=1, le=8)


class AnchorSettings(StageSettings):
    """Settings of the anchor, a frame of the shot that later frames take something from (`motion/anchor.py`).

    A keyframe is a picture that somebody painted over a frame. From that frame on it is the anchor, and the keyframe is
    shown along the flow. A cut discards it.

    coverage  0..1: a frame with a mean trust to the anchor below this becomes the anchor
    picture   file of a keyframe: PNG, JPEG or WebP. Its transparent parts count as not painted. Empty: none. Setting it
              again reads the file again
    frame     file of the frame that it was painted over; empty: it is found in the source
    at        time in the source, in seconds, of the frame that it was painted over; none: the most similar frame
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

    mode       interpolation between pixels; with bilinear, a picture that is warped again and again gets blurred
    cell_norm  1 or more: norm that reduces the trust of pixels to that of a latent cell (`reduce_to_latent`); null: the
               least trust of its pixels, which steadies less, since cells at the edges of occlusions are left out
    """

    mode: Mode = "sharp"
    cell_norm: Annotated[float, Field(ge=1)] | None = 2.0
