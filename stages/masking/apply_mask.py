"""The picture that is shown: styled where the mask is 1, the source where it is 0."""

from typing import Any

from warpfuse.stages.borrowed import kept
from warpfuse.stages.frame import Frame
from warpfuse.stages.masking.settings import MaskSettings
from warpfuse.stages.stage import Opening, Stage


def settings_of(config: Any, prompts: object) -> MaskSettings:
    """Those of a configuration."""
    return config.mask  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return ApplyMask(opening.config.mask)


class ApplyMask(Stage):
    """The styled picture and the source to the one that is shown.

    inputs  styled  "rgb" [1, 3, h, w] in [0, 1]
            mask    "mask" [1, 1, h, w] in [0, 1]
            source  "rgb" [1, 3, h, w] in [0, 1]
    gives   "rgb"   m styled + (1 - m) source, m = 1 - amount (1 - mask): to the bit the one where m is 1, and the other
                    where it is 0

    A frame shown as it was is the picture that this stage gave last: of a source that moved on, things would be shown
    twice.
    """

    def __init__(self, settings: MaskSettings) -> None:
        self._settings = settings
        self._last: Frame | None = None

    def __call__(self, styled: Frame, mask: Frame, source: Frame) -> Frame:
        """Compose one picture."""
        amount = self._settings.amount
        if "mask" not in mask.tensors or not amount:
            shown = styled["rgb"]
        else:
            m = mask["mask"] if amount == 1 else 1 - amount * (1 - mask["mask"])
            shown = m * styled["rgb"] + (1 - m) * source["rgb"]
        self._last = kept(Frame(styled.stamp, {"rgb": shown}))
        return self._last

    def held(self, styled: Frame, mask: Frame, source: Frame) -> Frame:
        """Of a repeat the picture that was given last."""
        if styled.stamp.hold == "repeat" and self._last is not None:
            return Frame(styled.stamp, self._last.tensors)
        return self(styled, mask, source)

    def update(self, settings: MaskSettings) -> None:
        """Take new settings, from the next frame on."""
        self._settings = settings
