"""The structure of a picture, on which all painters are based: evened light, flat areas, lines and grain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .colour import Map, Rgb, smooth_step, to_lab, to_rgb
from .flow_fields import Field, across, along, blur, kuwahara, tangents

LINE_SIGMA = 1.2  # pixels, for lines two to four pixels wide, which the latent and the line block can represent
LINE_FLOW = 5.0  # pixels along which a line is smoothed
CRISP = (0.03, 0.08)  # band of details that are not smoothed: letters and eyes, which are smaller than LINE_FLOW
UNSEEN = (0.02, 0.08)  # light of the surroundings, before shade is lifted: nothing is drawn below, everything above
AROUND = 26.0  # pixels over which light is averaged for lifting shade


@dataclass(frozen=True, slots=True)
class Structure:
    """The structure of a picture [h,w]: everything that depends on the neighbourhood of a pixel.

    lit          the picture with its shade lifted
    daubs, calm  the picture filtered once and twice to flat areas with sharp borders
    light        its light, in [0,1], smoothed across and along edges
    band         difference of light smoothed widely and narrowly: above 0 on dark lines and on the dark side of edges
    ridges       texture smoothed along edges, about -1..1, nearly 0 on empty ground; 0 in the dark, like band
    t, sure      tangents of edges, and their certainty
    """

    lit: Rgb
    daubs: Rgb
    calm: Rgb
    light: Map
    band: Map
    ridges: Map
    t: Field
    sure: Map


def structure(rgb: Rgb) -> Structure:
    """The structure of rgb [h,w,3] in [0,1]."""
    lit = exposed(rgb)
    t, sure = tangents(lit)
    daubs = kuwahara(lit, t, sure, 5.0, 9.0)
    calm = along(kuwahara(daubs, t, sure, 5.0, 9.0), t, 4.0)
    light = to_lab(lit)[..., 0] / np.float32(100)
    near, far = across(light, t, (LINE_SIGMA, 1.7 * LINE_SIGMA))
    raw = np.stack([near, far - near], -1)
    drawn = along(raw, t, LINE_FLOW)
    drawn += (raw - drawn) * smooth_step(*CRISP, np.abs(raw[..., 1]))[..., None]
    seen = smooth_step(*UNSEEN, blur(to_lab(rgb)[..., 0] / np.float32(100), 4.0))
    band, strokes = seen * drawn[..., 1], seen * ridges(light, t, 0.8, 2.6, 6.0)
    return Structure(lit, daubs, calm, drawn[..., 0], band, strokes, t, sure)


def deepened(s: Structure) -> Structure:
    """The structure with larger areas and stronger strokes, for later steps."""
    calm = along(kuwahara(s.calm, s.t, s.sure, 8.0, 9.0), s.t, 6.0)
    return replace(s, daubs=s.calm, calm=calm, ridges=np.clip(np.float32(1.5) * s.ridges, -1.8, 1.8))


def exposed(rgb: Rgb, amount: float = 0.65, aim: float = 0.58, most: float = 2.4) -> Rgb:
    """rgb with its shade lifted towards the light `aim`, by the mean light around, and by a factor of at most `most`,
    so that night pictures stay dark."""
    lab = to_lab(rgb)
    light = lab[..., 0] / np.float32(100)
    gain = np.clip((aim / (blur(light, AROUND) + 0.04)) ** amount, 1.0, most)
    gain = 1.0 + (gain - 1.0) * smooth_step(0.95, 0.35, light)
    lab[..., 0] = 100.0 * np.clip(light * gain, 0.0, 1.0)
    lab[..., 1:] *= np.minimum(gain, 1.6)[..., None]
    return to_rgb(lab)


def ridges(light: Map, t: Field, fine: float, coarse: float, reach: float, least: float = 0.008) -> Map:
    """Strokes, about -1..1: texture of a light between `fine` and `coarse` pixels, smoothed along t by `reach` pixels.

    It is divided by its local strength, which is at least `least`, so that sensor noise makes no strokes.
    """
    drawn = along(along(blur(light, fine) - blur(light, coarse), t, reach), t, 0.6 * reach)
    strokes = drawn / (np.sqrt(blur(drawn * drawn, 10.0)) + np.float32(least))
    return np.clip(strokes, -1.8, 1.8).astype(np.float32)
