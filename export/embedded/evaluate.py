"""Comparing a bundle with its painters on held-out photographs, in figures and side by side.

python -m warpfuse.export.embedded.evaluate BUNDLE --photos DIR --sheet FILE
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.errors import BadInput

from .ink_tables import SIDE, Table, looked_up
from .levels import alphas_and_sigmas
from .painters.colour import Map, Rgb, hex_rgb, mixed, to_lab
from .painters.structure import structure
from .painters.styles import PAINTERS, Painter, layers, padded, trimmed
from .photographs import HELD_OUT, SUFFIXES, Picture, permitted, read

TWELVE = 12  # photographs
TILE = (216, 288)  # height and width of a picture in a sheet, pixels
LINE_DEPTH = 9.0  # least difference of L between a line and its surroundings
LINE_WINDOW = 9  # pixels; wider things are no lines
LEAST_LINE = 12  # pixels of area
REACH = 2  # allowed distance of a line from its position, pixels
FLAT_SLOPE = 1.2  # L a pixel; the painter's ground is flat if its slope is smaller
_RING = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))


@dataclass(frozen=True, slots=True)
class Score:
    """Figures of a picture compared with its painter's.

    f1, precision, recall  of thinned lines, within REACH pixels
    lab                    mean distance in Lab
    slope, painter_slope   mean gradient of L of both, where the painter's picture is flat
    """

    f1: float
    precision: float
    recall: float
    lab: float
    slope: float
    painter_slope: float

    @staticmethod
    def summary(scores: Sequence[Score]) -> str:
        """The means as text. flatness: slope divided by the painter's."""
        means = {name: float(np.mean([getattr(s, name) for s in scores])) for name in Score.__slots__}
        flatness = means["slope"] / max(means["painter_slope"], 1e-6)
        said = " ".join(f"{name} {means[name]:.2f}" for name in ("f1", "precision", "recall", "lab"))
        return f"{said} flatness {flatness:.2f}"


def score(picture: Rgb, painted: Rgb, bright: bool = False) -> Score:
    """Figures of `picture` compared with `painted`. bright: the style has bright lines."""
    found, wanted = (lines(p, bright) for p in (picture, painted))
    precision, recall = near(found, wanted), near(wanted, found)
    flat = _grown(slope(painted) >= FLAT_SLOPE, 7) == 0
    energy = [float(slope(p)[flat].mean()) if flat.any() else 0.0 for p in (picture, painted)]
    return Score(
        2 * precision * recall / max(precision + recall, 1e-9),
        precision,
        recall,
        float(np.sqrt(((to_lab(picture) - to_lab(painted)) ** 2).sum(-1)).mean()),
        *energy,
    )


def lines(picture: Rgb, bright: bool = False) -> NDArray[np.bool_]:
    """The centre lines of dark (or bright) lines: black-hat (or top-hat) of L, thinned to one pixel."""
    light = cv2.GaussianBlur(to_lab(picture)[..., 0], (0, 0), 0.6)
    kind = cv2.MORPH_TOPHAT if bright else cv2.MORPH_BLACKHAT
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (LINE_WINDOW, LINE_WINDOW))
    mask = (cv2.morphologyEx(light, kind, window) > LINE_DEPTH).astype(np.uint8)
    _, label, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    kept = stats[:, cv2.CC_STAT_AREA] >= LEAST_LINE
    kept[0] = False
    return thinned(kept[label])


def thinned(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thinning of a mask to lines of one pixel, after Zhang and Suen 1984."""
    m = np.pad(mask, 1)
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            ring = [np.roll(m, offset, (0, 1)) for offset in _RING]
            count = sum(r.astype(np.uint8) for r in ring)
            rises = sum((~a & b).astype(np.uint8) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
            n, e, s, w = ring[0], ring[2], ring[4], ring[6]
            open_sides = ~(n & e & s) & ~(e & s & w) if first else ~(n & e & w) & ~(n & s & w)
            peeled = m & (count >= 2) & (count <= 6) & (rises == 1) & open_sides
            changed |= bool(peeled.any())
            m &= ~peeled
    return m[1:-1, 1:-1]


def slope(picture: Rgb) -> Map:
    """Magnitude of the gradient of L, a pixel."""
    light = to_lab(picture)[..., 0]
    return np.hypot(*(cv2.Sobel(light, cv2.CV_32F, *axis) / 8 for axis in ((1, 0), (0, 1)))).astype(np.float32)


def near(these: NDArray[np.bool_], those: NDArray[np.bool_]) -> float:
    """Share of the pixels of `these` with one of `those` within REACH; 1 if `these` is empty."""
    return float((these & (_grown(those, 2 * REACH + 1) > 0)).sum() / these.sum()) if these.any() else 1.0


def _grown(mask: NDArray[np.bool_], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)), np.uint8)


class Student:
    """The networks of a bundle in ONNX Runtime, run with one step at full strength and without fusion."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        bundle = load_bundle(str(folder.resolve()))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = {
            kind: onnxruntime.InferenceSession(bundle.network(kind), options, providers=["CPUExecutionProvider"])
            for kind in ("encoder", "unet", "decoder", "lines")
        }
        self.styles = bundle.about.styles
        self._tables = {
            name: np.fromfile(bundle.folder / style.lut, np.uint8).reshape(SIDE, SIDE, SIDE, 3)
            for name, style in self.styles.items()
            if style.lut is not None
        }
        self._level = np.asarray(alphas_and_sigmas(), np.float32)[[round(bundle.about.steps.top)]]

    def picture(self, rgb: Rgb, name: str) -> Rgb:
        """rgb [h,w,3] in [0,1], sides multiples of 8, restyled in the style `name`."""
        source = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32)
        z = self._run("encoder", rgb=source)
        noise = np.random.default_rng(0).standard_normal(z.shape).astype(np.float32)
        style = np.array([self.styles[name].vector], np.float32)
        x = self._level[0, 0] * z + self._level[0, 1] * noise
        latent = self._run("unet", x=x, source=z, level=self._level, style=style)
        paint = self._run("decoder", latent=latent)[0].transpose(1, 2, 0)
        cover = self._run("lines", rgb=source, latent=latent, style=style)[0, 0]
        ink = np.array(self.styles[name].ink, np.float32)
        return mixed(read_table(paint, self._tables[name]) if name in self._tables else paint, ink, cover)

    def _run(self, kind: str, **feed: NDArray[np.float32]) -> NDArray[np.float32]:
        (out,) = self._sessions[kind].run(None, feed)
        return np.asarray(out, np.float32)


def read_table(rgb: Rgb, table: Table) -> Rgb:
    """rgb in [0,1] mapped by a table of `ink_tables`, with trilinear interpolation."""
    tables = torch.from_numpy(table).permute(3, 2, 1, 0)[None].float() / 255.0
    picture = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]
    return np.asarray(looked_up(picture, tables)[0].permute(1, 2, 0), np.float32)


def photographs(folder: Path, long_side: int) -> Iterator[tuple[str, Rgb]]:
    """Yield (name, rgb) of HELD_OUT and of photographs whose licence does not permit training, TWELVE in total."""
    trained = {path.name for path in permitted(folder)}
    others = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name not in trained)
    held = [name for name in HELD_OUT if (folder / name).exists()]
    spread = others[:: max(1, len(others) // (TWELVE - len(held)))]
    for name in [*held, *spread][:TWELVE]:
        picture = read(folder / name)
        k = long_side / max(picture.shape[:2])
        size = [max(64, round(side * k / 8) * 8) for side in (picture.shape[1], picture.shape[0])]
        yield name, cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the mean figures of each style, and write the sheet with source, painter and student of every style."""
    parser = argparse.ArgumentParser(prog="python -m warpfuse.export.embedded.evaluate", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--photos", type=Path, required=True, help="the folder that was trained on: what was left out")
    parser.add_argument("--styles", nargs="+", choices=[p.name for p in PAINTERS], help="all of them by default")
    parser.add_argument("--long-side", type=int, default=448, help="of the photographs, pixels")
    parser.add_argument("--sheet", type=Path, help="picture file to write")
    given = parser.parse_args(arguments)
    try:
        student = Student(given.bundle)
        pictures = list(photographs(given.photos, given.long_side))
    except (BadInput, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    chosen = [p for p in PAINTERS if p.name in (given.styles or student.styles)]
    scores: dict[str, list[Score]] = {painter.name: [] for painter in chosen}
    rows = []
    for _, rgb in pictures:
        found, row = structure(padded(rgb)), [rgb]
        for painter in chosen:
            painted = trimmed(layers(painter, found)).picture
            drawn = student.picture(rgb, painter.name)
            scores[painter.name].append(score(drawn, painted, brighter(painter)))
            row += [painted, drawn]
        rows.append(row)
    for name, found_scores in scores.items():
        print(name, Score.summary(found_scores), flush=True)
    if given.sheet is not None:
        cv2.imwrite(str(given.sheet), sheet(rows)[:, :, ::-1])
    return 0


def brighter(painter: Painter) -> bool:
    """The key line of a style is light."""
    return bool(hex_rgb(painter.ink).mean() > 0.5)


def sheet(rows: Sequence[Sequence[Rgb]]) -> Picture:
    """A sheet of rows of pictures, cropped to TILE (height, width), above the centre."""
    h, w = TILE
    cut = []
    for row in rows:
        y, x = max(0, row[0].shape[0] - h) // 3, max(0, row[0].shape[1] - w) // 2
        tiles = [(picture[y : y + h, x : x + w] * 255.0 + 0.5).astype(np.uint8) for picture in row]
        cut.append(
            np.hstack([cv2.copyMakeBorder(t, 0, h - t.shape[0], 0, w - t.shape[1], cv2.BORDER_CONSTANT) for t in tiles])
        )
    return np.vstack(cut)


if __name__ == "__main__":
    sys.exit(main())
