"""The styles, each with a paint layer, inks in which it is printed, and the cover of a key line:

    picture = inked(paint) + cover * (ink - inked(paint))

`inked` works on single pixels, so the bundle has it as a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .colour import (
    Lab,
    Map,
    Rgb,
    hex_rgb,
    mixed,
    nearest_inks,
    plateaus,
    ramp,
    saturated,
    smooth_step,
    to_lab,
    to_rgb,
)
from .flow_fields import along, blur, tangents
from .structure import CRISP, Structure, ridges, structure

MARGIN = 32  # pixels of mirrored border, so that the rim is painted like the rest


@dataclass(frozen=True, slots=True)
class Painter:
    """A style.

    about  description for users
    paint  structure -> paint layer, without lines
    line   the key line; None: no lines
    ink    colour of the key line, "#rrggbb"
    inked  paint -> inks, pixel by pixel; None: paint is not changed
    """

    name: str
    about: str
    paint: Callable[[Structure], Rgb]
    line: Contours | KeyBlock | Gouges | Hatching | None = None
    ink: str = "#000000"
    inked: Callable[[Rgb], Rgb] | None = None


@dataclass(frozen=True, slots=True)
class PaintLayers:
    """The layers of a painter, [h,w,3] and [h,w] in [0,1]. `picture` is composed from the others and the ink."""

    paint: Rgb
    inked: Rgb
    cover: Map
    picture: Rgb


def flat(s: Structure) -> Rgb:
    """The paint layer of the styles that differ only in their inks."""
    return s.calm


@dataclass(frozen=True, slots=True)
class Contours:
    """Lines where the band is between `low` (no cover) and `high` (full cover), whatever the brightness.

    most    largest cover
    bright  light lines, where the band is negative
    """

    low: float
    high: float
    most: float = 1.0
    bright: bool = False

    def cover(self, s: Structure) -> Map:
        """The cover, [h,w] in [0,1]."""
        return np.float32(self.most) * smooth_step(self.low, self.high, -s.band if self.bright else s.band)

    def start(self) -> tuple[float, float, float]:
        """(band, light, offset), for initialising a network: the cover is about
        band * s.band + light * s.light + offset, clipped to [0,1]."""
        slope = self.most / (self.high - self.low)
        return (-slope if self.bright else slope, 0.0, -slope * self.low)


@dataclass(frozen=True, slots=True)
class KeyBlock:
    """Lines and solid shade: everything darker than low..high after sharpening light."""

    low: float
    high: float
    sharpening: float

    def cover(self, s: Structure) -> Map:
        """The cover, [h,w] in [0,1]."""
        return smooth_step(self.high, self.low, s.light - np.float32(self.sharpening) * s.band)

    def start(self) -> tuple[float, float, float]:
        """See `Contours.start`."""
        slope = 1.0 / (self.high - self.low)
        return (slope * self.sharpening, -slope, slope * self.high)


@dataclass(frozen=True, slots=True)
class Gouges:
    """The key block of a woodcut: shade cut away by gouges that follow the form."""

    def cover(self, s: Structure) -> Map:
        """The cover, [h,w] in [0,1]."""
        tone = 0.5 * (s.light - np.float32(12.0) * s.band) + 0.5 * to_lab(s.calm)[..., 0] / 100.0
        return smooth_step(0.05, -0.05, tone + 0.13 * s.ridges - 0.32)

    def start(self) -> tuple[float, float, float]:
        """See `Contours.start`."""
        return (60.0, -10.0, 3.0)


@dataclass(frozen=True, slots=True)
class Hatching:
    """Firm contours, and hairs along the form in the shade."""

    def cover(self, s: Structure) -> Map:
        """The cover, [h,w] in [0,1]."""
        hairs = smooth_step(0.2, 1.2, -s.ridges) * smooth_step(0.95, 0.5, s.light)
        return np.asarray(np.maximum(0.85 * smooth_step(0.005, 0.028, s.band), 0.55 * hairs), np.float32)

    def start(self) -> tuple[float, float, float]:
        """See `Contours.start`."""
        return (37.0, 0.0, -0.18)


UKIYOE_INKS = (
    "#f3e6c8", "#e8c88f", "#d98a4e", "#b8412f", "#7c2f35", "#8fb0b8", "#3f6f96", "#1f3a6b", "#16223f",
    "#5d7f5a", "#2f4c3d", "#b79c78", "#6d5a4a", "#d9b3a0", "#9c9a92", "#8a5236", "#c48a60", "#54302a",
)  # fmt: skip


def ukiyoe_inks(rgb: Rgb) -> Rgb:
    """Eighteen vegetable inks; a fifth of the light of the place shines through."""
    lab = saturated(to_lab(rgb), 1.7, 75.0)
    out = nearest_inks(lab, UKIYOE_INKS, 60.0, 0.75)
    out[..., 0] = 0.8 * out[..., 0] + 0.2 * lab[..., 0]
    return to_rgb(out)


def comic_inks(rgb: Rgb) -> Rgb:
    """Loud colour on five steps of light."""
    lab = saturated(to_lab(rgb), 1.9, 92.0)
    lab[..., 0] = 100.0 * np.clip(0.12 + 0.98 * plateaus(lab[..., 0] / 100.0, 5, 9.0), 0.0, 0.98)
    return to_rgb(lab)


def anime_inks(rgb: Rgb) -> Rgb:
    """Cel shading: warm light, violet shade, a soft step between them."""
    lab = saturated(to_lab(rgb), 1.6, 85.0)
    light = lab[..., 0] / 100.0
    lit = 0.45 * light + 0.55 * plateaus(light, 5, 8.0)
    lab[..., 0] = 100.0 * np.clip(0.09 + 0.96 * lit**0.88, 0.0, 1.0)
    shade = smooth_step(0.55, 0.1, lit)
    lab[..., 1] += 7.0 * shade + 2.0 * smooth_step(0.6, 0.9, lit)
    lab[..., 2] += -15.0 * shade + 5.0 * smooth_step(0.55, 0.95, lit)
    return to_rgb(lab)


def ink_washes(rgb: Rgb) -> Rgb:
    """Two grey washes on rice paper."""
    light = to_lab(rgb)[..., 0] / 100.0
    wash = 1.0 - 0.26 * smooth_step(0.62, 0.50, light) - 0.30 * smooth_step(0.40, 0.28, light)
    return ramp(wash, [(0, "#14131a"), (0.35, "#4b4a52"), (0.7, "#b5aea4"), (1, "#f6efe0")])


def noir_inks(rgb: Rgb) -> Rgb:
    """Paper and one grey; what is red stays red."""
    lab = to_lab(rgb)
    light, a, b = lab[..., 0] / 100.0, lab[..., 1], lab[..., 2]
    tone = ramp(
        plateaus(np.clip(0.1 + 0.95 * light, 0, 1), 4, 9.0),
        [(0, "#0d0d12"), (0.34, "#55555c"), (0.67, "#b9b8b6"), (1, "#f7f6f2")],
    )
    red = smooth_step(20.0, 36.0, a - 0.35 * np.abs(b - 18.0)) * smooth_step(14.0, 28.0, a)
    return mixed(tone, hex_rgb("#e01326"), red)


def woodcut_inks(rgb: Rgb) -> Rgb:
    """Three steps of warm, quiet ink."""
    lab = saturated(to_lab(rgb), 1.5, 70.0)
    lab[..., 0] = 100.0 * (0.42 + 0.52 * plateaus(lab[..., 0] / 100.0, 3, 8.0))
    lab[..., 1:] = 0.8 * lab[..., 1:] + np.array([3.0, 14.0], np.float32)
    return to_rgb(lab)


def blueprint_inks(rgb: Rgb) -> Rgb:
    """Four shades of Prussian blue."""
    light = plateaus(to_lab(rgb)[..., 0] / 100.0, 4, 8.0)
    return ramp(light, [(0, "#06234f"), (0.5, "#0f4185"), (1, "#2b6bb5")])


def poster_inks(rgb: Rgb) -> Rgb:
    """Navy, red, pale blue and cream, by light alone."""
    light = plateaus(np.clip(1.1 * to_lab(rgb)[..., 0] / 100.0 - 0.05, 0, 1), 5, 6.0)
    return ramp(light, [(0, "#0b2a4a"), (0.25, "#12385f"), (0.5, "#d4273e"), (0.75, "#7fb1b3"), (1, "#fbe8b9")])


def pencil_paint(s: Structure) -> Rgb:
    """Graphite rubbed on white paper, its grain along the form."""
    tone = np.clip(s.light + 1.2 * (s.light - blur(s.light, 7.0)), 0.0, 1.0)
    dark = np.clip((1.0 - tone - 0.12) / 0.88, 0.0, 1.0)
    rubbed = 0.80 * smooth_step(0.02, 0.95, dark)
    grain = 0.20 * s.ridges * smooth_step(0.03, 0.3, dark)
    return ramp(np.clip(1.0 - rubbed + grain, 0, 1), [(0, "#222227"), (0.5, "#807f86"), (1, "#fbf9f4")])


def neon_tubes(s: Structure) -> Map:
    """0..1 on bright lines and on the bright side of edges."""
    return smooth_step(0.006, 0.026, -s.band)


def neon_paint(s: Structure) -> Rgb:
    """A midnight picture lit by tubes in the hue of the place; greys get cyan in the shade, magenta in the light."""
    lab = to_lab(s.calm)
    light, chroma = lab[..., 0] / 100.0, np.hypot(lab[..., 1], lab[..., 2])
    own = np.asarray(lab[..., 1:] / (chroma + 1e-3)[..., None] * 82.0, np.float32)
    at = blur(light, 4.0)
    grey = np.stack([np.interp(at, [0.2, 0.75], ends) for ends in ([-30, 70], [-38, -30])], -1).astype(np.float32)
    hue = blur(mixed(grey, own, smooth_step(10.0, 28.0, chroma)), 2.0)
    tube = to_rgb(np.dstack([np.full_like(light, 72.0), hue]))
    ground = to_rgb(np.dstack([3.0 + 14.0 * light**1.3, 0.5 * lab[..., 1] + 10.0, 0.45 * lab[..., 2] - 20.0]))
    lit = tube * neon_tubes(s)[..., None]
    glow = 0.55 * blur(lit, 1.5) + 0.7 * blur(lit, 4.0) + 1.1 * blur(lit, 12.0)
    return np.asarray(1.0 - (1.0 - ground) * (1.0 - np.clip(glow, 0.0, 1.0)), np.float32)


def watercolour_paint(s: Structure) -> Rgb:
    """Washes on white paper: lights left bare, pigment pooled at the rims."""
    lab = saturated(to_lab(s.calm), 1.75, 72.0)
    light = np.clip(lab[..., 0] / 100.0 * 1.06, 0, 1)
    soft = 0.35 * light + 0.65 * plateaus(light, 6, 5.0)
    lab[..., 0] = 100.0 * (1.0 - 0.78 * np.clip(1.0 - soft, 0.0, 1.0) ** 1.15)
    shade = smooth_step(0.5, 0.1, soft)
    lab[..., 1] += 5.0 * shade
    lab[..., 2] -= 12.0 * shade
    bare = smooth_step(0.76, 0.86, blur(light, 1.2) - 0.004 * np.hypot(lab[..., 1], lab[..., 2]))
    wash = mixed(to_rgb(lab), np.ones(3, np.float32), 0.9 * bare)
    wet = blur(wash, 1.0)
    rim = np.clip(blur(wet, 2.6) - wet, 0, 1).mean(-1) + 0.5 * np.clip(blur(wet, 7.0) - wet, 0, 1).mean(-1)
    density = 3.2 * rim + 0.05 * s.ridges * smooth_step(0.0, 0.35, 1.0 - soft)
    darkened = (wash - (wash - wash * wash) * density[..., None]) * hex_rgb("#fffdf7")
    return np.asarray(np.clip(darkened, 0, 1), np.float32)


def relief(height: Map) -> Map:
    """Light from the upper left on a height, about -1..1."""
    gx, gy = (cv2.Sobel(height, cv2.CV_32F, *axis, ksize=3) / 4 for axis in ((1, 0), (0, 1)))
    return np.asarray(0.59 * gx + 0.81 * gy, np.float32) * np.float32(-1)


def oil_paint(s: Structure) -> Rgb:
    """Broad daubs that follow the form, rich colour, light on the ridges the brush left; eyes and letters stay."""
    light = to_lab(s.lit)[..., 0] / np.float32(100)
    broad = ridges(light, s.t, 1.4, 4.2, 10.0)
    fine = smooth_step(*CRISP, np.abs(s.band))
    strokes = np.clip(0.65 * (s.ridges + broad), -1.8, 1.8) * (1.0 - 0.9 * fine)
    lab = saturated(to_lab(mixed(s.daubs, s.lit, fine)), 1.6, 95.0)
    light = lab[..., 0] / 100.0
    lab[..., 0] = 100.0 * np.clip(light + 0.042 * np.sin(2.0 * np.pi * (light - 0.5)), 0.0, 1.0)
    lab[..., 0] += 6.0 * strokes + 14.0 * relief(blur(strokes, 0.6) + 0.02 * lab[..., 0])
    lab[..., 1:] *= (1.0 - 0.12 * strokes)[..., None]
    return to_rgb(lab)


def starry_tint(lab: Lab) -> Lab:
    """Ultramarine shade, cobalt skies, chrome-yellow light; flesh and fire keep their colour."""
    out = saturated(lab, 1.5, 95.0)
    light = out[..., 0] / 100.0
    tint = np.stack(
        [np.interp(light, [0, 0.3, 0.62, 0.85, 1], v) for v in ([6, 12, -2, 2, 0], [-28, -34, 2, 28, 22])], -1
    )
    cool = smooth_step(1.0, -9.0, out[..., 2])
    tint[..., 1] += cool * (np.minimum(tint[..., 1], -20.0) - tint[..., 1])
    out[..., 0] -= 12.0 * cool * smooth_step(0.5, 0.8, light)
    warm = smooth_step(8.0, 40.0, out[..., 2])[..., None]
    out[..., 1:] = 0.85 * out[..., 1:] + (0.85 - 0.6 * warm) * tint
    return out


def starry_paint(s: Structure) -> Rgb:
    """Long ropes of paint that swirl around the form, yellow on their ridges, blue between; eyes and letters stay."""
    t, _ = tangents(s.lit, 5.0, 0.5)
    ropes = ridges(to_lab(s.lit)[..., 0] / np.float32(100), t, 1.3, 4.2, 11.0, 0.006)
    fine = smooth_step(*CRISP, np.abs(s.band))
    lab = starry_tint(to_lab(mixed(along(s.daubs, t, 5.0), s.daubs, fine)))
    lab[..., 0] += 11.0 * ropes + 12.0 * relief(blur(ropes, 0.8))
    lab[..., 1] -= 6.0 * ropes
    lab[..., 2] += 16.0 * ropes
    return to_rgb(lab)


def chalk_paint(s: Structure) -> Rgb:
    """Coloured chalk rubbed on slate, its strokes along the form; the board shows through."""
    lab = saturated(to_lab(s.calm), 2.4, 80.0)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    light = np.clip(lab[..., 0] / 100.0 + 0.6 * (s.light - blur(s.light, 6.0)), 0.0, 1.0)
    rub = np.clip(0.80 * smooth_step(0.12, 1.0, light) + chroma / 260.0, 0.0, 1.0)
    cover = np.clip(rub * (1.0 + 0.30 * s.ridges), 0.0, 0.92)
    lab[..., 0] = 50.0 + 44.0 * light
    board = np.broadcast_to(hex_rgb("#1d292a"), lab.shape).astype(np.float32)
    return mixed(board, to_rgb(lab), cover)


PAINTERS: tuple[Painter, ...] = (
    Painter(
        "ukiyoe", "Japanese print: vegetable inks and an indigo key line",
        flat, Contours(0.007, 0.03, 0.92), "#141a33", ukiyoe_inks,
    ),
    Painter(
        "anime", "cel-shaded film: warm light, violet shade, fine lines",
        flat, Contours(0.008, 0.036, 0.85), "#2d1a3e", anime_inks,
    ),
    Painter("comic", "loud flat colour in bold outlines", flat, KeyBlock(0.08, 0.24, 18.0), "#100c18", comic_inks),
    Painter("neon", "glowing tubes on a midnight picture", neon_paint, Contours(0.0147, 0.026, 0.75, True), "#f6f2ff"),
    Painter(
        "ink", "black brush lines and two grey washes on rice paper",
        flat, KeyBlock(0.12, 0.30, 16.0), "#14131a", ink_washes,
    ),
    Painter("noir", "black, grey and white; red stays red", flat, KeyBlock(0.16, 0.28, 14.0), "#0b0b0f", noir_inks),
    Painter("woodcut", "black key block, gouged along the form, on warm inks", flat, Gouges(), "#1b1512", woodcut_inks),
    Painter("pencil", "graphite on white paper, hatched along the form", pencil_paint, Hatching(), "#26262b"),
    Painter(
        "watercolour", "washes pooled at their rims over a pencil line",
        watercolour_paint, Contours(0.010, 0.045, 0.55), "#3d3950",
    ),
    Painter("oil", "broad daubs that follow the form, light on their ridges", oil_paint),
    Painter(
        "starry", "ropes of paint in ultramarine and chrome yellow",
        starry_paint, Contours(0.010, 0.045, 0.6), "#101a4a",
    ),
    Painter("blueprint", "white lines on Prussian blue", flat, Contours(0.006, 0.03), "#f1f6ff", blueprint_inks),
    Painter(
        "poster", "navy, red, pale blue and cream by light alone",
        flat, Contours(0.010, 0.04, 0.9), "#0b2a4a", poster_inks,
    ),
    Painter("chalk", "coloured chalk on slate", chalk_paint, Contours(0.006, 0.03, 0.9, True), "#f2eee4"),
)  # fmt: skip


def deep_paint(paint: Callable[[Structure], Rgb], deep: Structure) -> Rgb:
    """The paint layer that is the target of the last of several steps, with richer colour. deep: from `deepened`."""
    lab = saturated(to_lab(np.clip(paint(deep), 0.0, 1.0).astype(np.float32)), 1.25, 95.0)
    lab[..., 0] = np.clip(50.0 + 1.15 * (lab[..., 0] - 50.0), 0.0, 100.0)
    return np.clip(to_rgb(lab), 0.0, 1.0)


def layers(painter: Painter, s: Structure) -> PaintLayers:
    """The layers of a painter for a structure."""
    paint = np.clip(painter.paint(s), 0.0, 1.0).astype(np.float32)
    inked = paint if painter.inked is None else painter.inked(paint)
    cover = np.zeros(paint.shape[:2], np.float32) if painter.line is None else painter.line.cover(s)
    return PaintLayers(paint, inked, cover, mixed(inked, hex_rgb(painter.ink), cover))


def paint(rgb: Rgb, name: str) -> PaintLayers:
    """The layers of rgb [h,w,3] in [0,1] in the style `name`. Raises KeyError for an unknown style."""
    painter = {p.name: p for p in PAINTERS}[name]
    return trimmed(layers(painter, structure(padded(rgb))))


def padded(rgb: Rgb) -> Rgb:
    """rgb with a mirrored margin."""
    return np.asarray(cv2.copyMakeBorder(rgb, *(MARGIN,) * 4, cv2.BORDER_REFLECT), np.float32)


def trimmed(made: PaintLayers) -> PaintLayers:
    """The layers without the margin of `padded`."""
    inside = slice(MARGIN, -MARGIN)
    return PaintLayers(*(getattr(made, name)[inside, inside] for name in PaintLayers.__slots__))
