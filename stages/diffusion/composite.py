"""The finished picture of a bundle that draws lines: the paint, printed in inks, with lines over it.

Paint and cover of the lines are fed back for the next frame, not the finished picture: lines would be drawn on lines.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine, is_capturable
from warpfuse.engine.cuda_streams import ToDevice
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.diffusion.palette import Palette
from warpfuse.stages.diffusion.prompts import Prompts
from warpfuse.stages.diffusion.settings import FuseSettings
from warpfuse.stages.formulas.composite import shares_of
from warpfuse.stages.frame import Frame, Latent, Picture, Stamp
from warpfuse.stages.stage import Capturable, Opening, Stage


@dataclass(frozen=True, slots=True, eq=False)
class CompositeSettings:
    """Settings of the finished picture.

    style     [1, n]: style vector of the prompt, not scaled by the strength
    palette   inks and lines of the styles
    strength  0..1: at 0 the paint is shown unchanged
    fuse      its weights say how much of the paint and the cover of the frame before is fused in
    """

    style: Tensor
    palette: Palette
    strength: float
    fuse: FuseSettings


def settings_of(config: Any, prompts: Prompts) -> CompositeSettings:
    """The settings of this stage in a configuration. Raises StyleError for an unknown name."""
    asked = prompts(config.prompt, config.negative, config.loras, config.images)
    assert asked.palette is not None, "a bundle that draws lines has styles"
    return CompositeSettings(asked.given["style"], asked.palette, config.strength, config.stages.fuse)


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return Composite(opening.network("lines"), settings_of(opening.config, opening.prompts))


class Composite(Stage, Capturable):
    """Paint and lines composed to a picture.

    inputs  paint    the decoded picture
            latent   the latent it was decoded from
            source   the frame of the source
            past     paint and cover of the frame before, warped, and their trust; optional. A held frame shows
                     that cover unchanged
    gives   rgb      p + s lines cover (ink - p), p = paint + s (table(paint) - paint)
            paint    the input, cored
            cover    w past + (1 - w) cover, cored, with the sharpness of cover; None if no lines are drawn

    Coring fuses small changes once more (`formulas/composite.py`).

    Owns the engine and closes it.
    """

    def __init__(self, lines: Engine, settings: CompositeSettings) -> None:
        self._lines = lines
        self._ops = arithmetic(settings.style.device)
        self._numbers_to_device, self._table_to_device = (ToDevice(settings.style.device) for _ in range(2))
        self.update(settings)

    def __call__(self, paint: Picture, latent: Frame, source: Picture, past: Frame | None = None) -> Picture:
        """The finished picture, by one run of the network; none for a style without lines."""
        known = past if isinstance(past, Picture) else None
        cover = None
        if self._draws and isinstance(latent, Latent):
            cover = self._cover(latent, source, known)
        if known is not None:
            paint = replace(paint, rgb=self._cored(paint.rgb, known.rgb, known.trust))
        return self._finished(paint, cover)

    def held(self, paint: Frame, latent: Frame, source: Picture, past: Frame | None = None) -> Frame:
        """The picture with the warped cover of the frame before; without one it is computed."""
        if not isinstance(paint, Picture):  # there was no picture yet
            return paint
        if isinstance(past, Picture) and past.cover is not None:
            return self._finished(paint, past.cover)
        return self(paint, latent, source, past)

    def update(self, settings: CompositeSettings) -> None:
        """Use new inks and lines from the next frame on."""
        self._settings = settings
        palette, fuse = settings.palette, settings.fuse
        weight = fuse.largest_weight
        self._prints = settings.strength > 0
        self._cores = self._prints and weight > 0 and fuse.coring > 0
        self._draws = self._prints and palette.lines > 0
        shares = shares_of(palette.ink, palette.lines, settings.strength)
        self._numbers = self._numbers_to_device(
            torch.cat((shares, torch.tensor([weight * fuse.lines, weight, fuse.coring])))
        )
        table = palette.table
        self._table = None if table is None else self._table_to_device(torch.from_numpy(table.copy()))

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable | None:
        """See `Capturable`."""
        launched = self._prints, self._draws, self._cores, bool(self._settings.fuse.lines)
        return launched if is_capturable(self._lines) else None

    @property
    def state(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Style, numbers, colours of the paint."""
        return self._settings.style, self._numbers, self._table

    @state.setter
    def state(self, state: tuple[Tensor, Tensor, Tensor | None]) -> None:
        style, self._numbers, self._table = state
        self._settings = replace(self._settings, style=style)

    def close(self) -> None:
        """Close the network, and give the pinned memory back."""
        self._lines.close()
        for copier in (self._numbers_to_device, self._table_to_device):
            copier.close()

    def _finished(self, paint: Picture, cover: Tensor | None) -> Picture:
        rgb = self._ops.composed(paint.rgb, cover, self._table, self._numbers[:5]) if self._prints else paint.rgb
        return Picture(paint.stamp, rgb, paint.rgb, cover)

    def _cover(self, latent: Latent, source: Picture, past: Picture | None) -> Tensor:
        cover = self._lines({"rgb": source.rgb, "latent": latent.z, "style": self._settings.style})["cover"]
        if past is None or past.cover is None or past.trust is None or not self._settings.fuse.lines:
            return cover.clone()  # the engine reuses its output memory
        return self._ops.fuse_lines(cover, past.cover, past.trust, self._numbers[5:], self._cores)

    def _cored(self, x: Tensor, past: Tensor, trust: Tensor | None) -> Tensor:
        """x with its small changes fused once more, unless that is off."""
        return self._ops.cored(x, past, trust, self._numbers[6:]) if self._cores and trust is not None else x
