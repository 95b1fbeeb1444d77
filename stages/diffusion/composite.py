"""The finished picture of a bundle that draws lines: its paint, printed in inks, and the cover of the lines over it.

What comes back for the next frame is paint and cover, never the finished picture: lines would be drawn on lines.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.diffusion.fuse import FuseSettings, fusion_weight
from warpfuse.stages.diffusion.palette import Palette
from warpfuse.stages.frame import Frame


@dataclass(frozen=True, slots=True, eq=False)
class CompositeSettings:
    """What a picture is finished with.

    style     [1, n]: the vector of the prompt's styles, not scaled by the strength
    palette   inks and lines of the styles
    strength  0..1: at 0 the paint is shown as it is
    fuse      how much of the cover of the frame before is fused in
    """

    style: Tensor
    palette: Palette
    strength: float
    fuse: FuseSettings


class Composite:
    """Paint and lines to a picture.

    inputs  paint    "rgb" [1, 3, h, w] in [0, 1], what the decoder gave
            latent   "latent" [1, c, h/d, w/d], what it was decoded from
            source   "rgb" [1, 3, h, w] in [0, 1], the frame of the source
            past     "cover" [1, 1, h, w] of the frame before, warped, and "trust_pixels" likewise; or nothing. Where
                     the graph feeds it. Of a held frame its cover is shown as it is
    gives   "rgb"    [1, 3, h, w] in [0, 1]: p + s lines cover (ink - p), p = paint + s (table(paint) - paint)
            "paint"  what came in
            "cover"  [1, 1, h, w] in [0, 1]: w past + (1 - w) cover, as sharp as cover; none where no lines are drawn

    Owns the engine and closes it.
    """

    inputs = ("paint", "latent", "source", "past")

    def __init__(self, lines: Engine, settings: CompositeSettings) -> None:
        self._lines = lines
        self._ops = arithmetic(settings.style.device)
        self.update(settings)

    def __call__(self, paint: Frame, latent: Frame, source: Frame, past: Frame | None = None) -> Frame:
        """One run of the network, none for a style without lines or a held frame."""
        memory = {} if past is None else past.tensors
        if "rgb" not in paint.tensors:  # held, and there was no picture yet
            return paint
        tensors = {"paint": paint["rgb"]}
        if paint.stamp.hold and "cover" in memory:
            tensors["cover"] = memory["cover"]
        elif self._draws and "latent" in latent.tensors:
            tensors["cover"] = self._cover(latent, source, memory.get("cover"), memory.get("trust_pixels"))
        settings = self._settings
        palette = settings.palette
        rgb = self._ops.composed(
            tensors["paint"], tensors.get("cover"), self._table, palette.ink, palette.lines, settings.strength
        )
        return Frame(paint.stamp, {"rgb": rgb, **tensors})

    def update(self, settings: CompositeSettings) -> None:
        """Take new inks and lines, from the next frame on."""
        self._settings = settings
        self._draws = settings.strength > 0 and settings.palette.lines > 0
        table, device = settings.palette.table, settings.style.device
        self._table = None if table is None else torch.from_numpy(table.copy()).to(device)

    def close(self) -> None:
        """Close the network."""
        self._lines.close()

    def _cover(self, latent: Frame, source: Frame, past: Tensor | None, trust: Tensor | None) -> Tensor:
        feed = {"rgb": source["rgb"], "latent": latent["latent"], "style": self._settings.style}
        cover = self._lines(feed)["cover"]
        fuse = self._settings.fuse
        if past is None or trust is None or not fuse.lines:
            return cover.clone()  # theirs is theirs
        fused = torch.lerp(cover, past, fusion_weight(fuse, trust) * fuse.lines)
        return self._ops.as_sharp_as(cover, fused)
