"""What all painters start from: light one can read, flat areas, lines and the grain of a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .colour import Map, Rgb, smooth_step, to_lab, to_rgb
from .flow_fields import Field, across, along, blur, kuwahara, tangents

LINE_SIGMA = 1.2  # pixels: lines two to four pixels wide, which an eightfold latent beside a line block can carry
LINE_FLOW = 5.0  # pixels along which a line is drawn out
CRISP = (0.03, 0.08)  # band of what is drawn as it is: letters and eyes, which are smaller than LINE_FLOW
UNSEEN = (0.02, 0.08)  # light around a place, before shade is lifted: noise below, all that is drawn above
AROUND = 26.0  # pixels over which light is looked at when shade is lifted


@dataclass(frozen=True, slots=True)
class Structure:
    """Of a picture [h,w]: everything of it that needs the neighbourhood of a pixel.

    lit          the picture with its shade lifted
    daubs, calm  filtered once and twice to flat areas with crisp borders
    light        its light, 0..1, smoothed across and along the edges
    band         light further from a line less light on it: above 0 on dark lines and on the dark side of edges
    ridges       texture drawn out along the form, about -1..1, next to nothing on empty ground; like band 0 in the dark
    t, sure      tangents of the edges, and how sure they are
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
    """The structure of rgb [h,w,3] in 0..1."""
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
    """Of the same picture, in larger areas and stronger strokes: what later steps paint."""
    calm = along(kuwahara(s.calm, s.t, s.sure, 8.0, 9.0), s.t, 6.0)
    return replace(s, daubs=s.calm, calm=calm, ridges=np.clip(np.float32(1.5) * s.ridges, -1.8, 1.8))


def exposed(rgb: Rgb, amount: float = 0.65, aim: float = 0.58, most: float = 2.4) -> Rgb:
    """Shade lifted towards a light of `aim` by what lies around, at most `most` times: night stays night."""
    lab = to_lab(rgb)
    light = lab[..., 0] / np.float32(100)
    gain = np.clip((aim / (blur(light, AROUND) + 0.04)) ** amount, 1.0, most)
    gain = 1.0 + (gain - 1.0) * smooth_step(0.95, 0.35, light)
    lab[..., 0] = 100.0 * np.clip(light * gain, 0.0, 1.0)
    lab[..., 1:] *= np.minimum(gain, 1.6)[..., None]
    return to_rgb(lab)


def ridges(light: Map, t: Field, fine: float, coarse: float, reach: float, least: float = 0.008) -> Map:
    """Strokes, about -1..1: texture between `fine` and `coarse` pixels of a light, drawn out along t by `reach` pixels.

    It is divided by how much of it lies around, and by no less than `least`, so that sensor noise makes no strokes.
    """
    drawn = along(along(blur(light, fine) - blur(light, coarse), t, reach), t, 0.6 * reach)
    strokes = drawn / (np.sqrt(blur(drawn * drawn, 10.0)) + np.float32(least))
    return np.clip(strokes, -1.8, 1.8).astype(np.float32)
