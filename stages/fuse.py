"""Fusion of what the network believes now with what was shown before, where the flow may be trusted."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from warpfuse.stages.frame import Frame
from warpfuse.stages.sampling import CLEAN, fuse
from warpfuse.stages.settings import StageSettings

W_MAX = 0.95
"""Largest weight in use: at 1 an error, once in the picture, would never leave it."""


class FuseSettings(StageSettings):
    """Where and how strongly the past is fused in.

    weight     0..1: share of the warped past where the flow is trusted, held at `W_MAX`; 0 shows every frame on its own
    reference  picture  the last styled picture, warped and encoded again
               latent   its x0, warped as a latent: no encoder and no wait for the decoder; but a cell of 8 x 8 pixels
                        is not shift-equivariant, so it goes soft
               output   the picture again at entry, and at the exit blended over the decoded picture, not into x0
    entry      fuse into the latent the UNet starts from: keeps strokes sharp
    between    fuse into the latent between two steps as well
    exit       fuse into what is shown: keeps them still
    """

    weight: float = Field(0.8, ge=0, le=1)
    reference: Literal["picture", "latent", "output"] = "picture"
    entry: bool = True
    between: bool = False
    exit: bool = True


def fusion_weight(settings: FuseSettings, trust: Tensor) -> Tensor:
    """w = min(weight, W_MAX) * trust, [1, 1, h, w] in [0, W_MAX]."""
    return trust * min(settings.weight, W_MAX)


class Fuse:
    """Exit fusion: the predicted x0 with the warped, encoded last picture.

    inputs  prediction  "latent": predicted x0 [1, c, h, w]
            reference   "latent": encoded warped picture, "trust" [1, 1, h, w]; or nothing, then x0 passes
    gives   "latent"    w x0_ref + (1 - w) x0, theory of the last step: no noise is left to rescale
    """

    inputs = ("prediction", "reference")

    def __init__(self, settings: FuseSettings) -> None:
        self._settings = settings

    def __call__(self, prediction: Frame, reference: Frame) -> Frame:
        """Blend where trusted; bit for bit the prediction where the weight is 0."""
        x0 = prediction["latent"]
        if "latent" not in reference.tensors or not self._settings.exit:
            return Frame(prediction.stamp, {"latent": x0})
        w = fusion_weight(self._settings, reference["trust"])
        return Frame(prediction.stamp, {"latent": fuse(x0, None, reference["latent"], None, w, 0.0, CLEAN)})

    def update(self, settings: FuseSettings) -> None:
        """Take new weights."""
        self._settings = settings

    def close(self) -> None:
        """Nothing is held."""


class Blend(Fuse):
    """Fusion after the decoder: the picture with the warped last picture.

    inputs  picture    "rgb" [1, 3, h, w] in [0, 1]
            past       "rgb" likewise and "trust_pixels" [1, 1, h, w]; or nothing, then the picture passes
    gives   "rgb"      w past + (1 - w) picture
    """

    inputs = ("picture", "past")

    def __call__(self, picture: Frame, past: Frame) -> Frame:
        """Blend where trusted; bit for bit the picture where the weight is 0."""
        if "rgb" not in past.tensors or not self._settings.exit:
            return picture
        w = fusion_weight(self._settings, past["trust_pixels"])
        return Frame(picture.stamp, {"rgb": fuse(picture["rgb"], None, past["rgb"], None, w, 0.0, CLEAN)})
