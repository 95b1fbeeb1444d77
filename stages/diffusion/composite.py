"""The finished picture of a bundle that draws lines: its paint, printed in inks, and the cover of the lines over it.

What comes back for the next frame is paint and cover, never the finished picture: lines would be drawn on lines.
"""

from dataclasses import dataclass

import cv2
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

from warpfuse.engine.contract import Engine
from warpfuse.stages.cpu.composite import composed_on_host
from warpfuse.stages.cpu.opencv import each_plane
from warpfuse.stages.diffusion.fuse import FuseSettings, fusion_weight
from warpfuse.stages.diffusion.palette import Palette
from warpfuse.stages.frame import Frame

_LARGEST = 2.0
"""Of the gain in `as_sharp_as`: beyond it it is noise, not lines."""


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
        rgb = composed(tensors["paint"], tensors.get("cover"), settings.palette, self._table, settings.strength)
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
        return as_sharp_as(cover, fused)


def as_sharp_as(drawn: Tensor, fused: Tensor) -> Tensor:
    """`fused` with the detail that fusion blurred, both [1, 1, h, w] in [0, 1]: x + (g - 1) d(x).

    d(x) is x less its mean over 3 x 3 pixels, g the ratio of deviations of d, 1 to 2. Covers that part by a fraction
    of a pixel blur the edges of lines; in a still picture g is 1. Nothing waits for the device.
    """
    detail, drawn_detail = fused - _nearby(fused), drawn - _nearby(drawn)
    gain = (drawn_detail.square().mean() / detail.square().mean().clamp_min(1e-8)).sqrt().clamp(1.0, _LARGEST)
    return torch.addcmul(fused, detail, gain - 1).clamp_(0, 1)


def _nearby(x: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels, [1, 1, h, w]; the edge goes on."""
    if x.device.type == "cpu":
        return each_plane(x, lambda plane, out: cv2.blur(plane, (3, 3), out, borderType=cv2.BORDER_REPLICATE))
    return avg_pool2d(pad(x, (1, 1, 1, 1), "replicate"), 3, 1)


def composed(paint: Tensor, cover: Tensor | None, palette: Palette, table: Tensor | None, strength: float) -> Tensor:
    """p + s lines cover (ink - p) with p = paint + s (table(paint) - paint); paint itself where nothing is laid on it.

    paint  [1, 3, h, w] in [0, 1]; cover [1, 1, h, w] in [0, 1] or None; table as `Palette.table`, read trilinearly
    """
    if not strength or (table is None and cover is None):
        return paint
    if paint.device.type == "cpu":
        return composed_on_host(paint, cover, palette, table, strength)
    printed = paint
    if table is not None:
        printed = torch.lerp(paint, _looked_up(paint, table), strength)
    if cover is None:
        return printed
    ink = torch.tensor(palette.ink, device=paint.device)[None, :, None, None]
    return torch.lerp(printed, ink, (strength * palette.lines) * cover)


def _looked_up(rgb: Tensor, table: Tensor) -> Tensor:
    """Colours through a table, trilinearly. A grid has x first, which is red here: blue is the outermost axis."""
    grid = rgb.permute(0, 2, 3, 1)[:, None] * 2 - 1
    volume = table.permute(3, 0, 1, 2)[None]
    return grid_sample(volume, grid, "bilinear", padding_mode="border", align_corners=True)[:, :, 0]
