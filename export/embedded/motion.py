"""Synthetic pairs of pictures of a moving scene, made from photographs, with the exact flow between them.

A scene has a background and cut-outs in front of it. Each layer has its own motion, an affine map and a thin-plate
spline (Bookstein 1989). If a layer shows texture(p) in the previous picture, the current one shows
texture(p + flow(p)). So the flow from current to previous is known exactly, also behind edges and outside the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .photographs import Picture, jitter, to_tensor

Plane = NDArray[np.float32]  # [h,w]
Field = NDArray[np.float32]  # [h,w,2], (x, y) pixels

MARGIN = 64  # pixels of texture beyond each border
FASTEST_PX = 48.0
_GRAIN = np.random.default_rng(0).standard_normal(2_000_003, np.float32)
SPLINE_CELL = 8  # pixels between computed points of the spline; it is interpolated between them


@dataclass(frozen=True, slots=True)
class Pair:
    """cur, prev: uint8 [h,w,3];  flow: float32 [h,w,2], pixels, current to previous."""

    cur: Picture
    prev: Picture
    flow: Field


def random_pair(photos: Sequence[Picture], height: int, width: int, rng: np.random.Generator) -> Pair:
    """A random scene of a background and up to seven cut-outs, with a slight change of light and noise.

    photos  output of `at_scales` for height and width
    """
    camera = _motion(height, width, rng, centre=(width / 2, height / 2))
    pair = move(_texture(photos, height, width, rng), None, camera, None)
    for _ in range(int(rng.integers(0, 8))):
        shape, centre = _shape(height, width, rng)
        field = _motion(height, width, rng, centre, fastest=1.3 * FASTEST_PX * rng.random())
        if rng.random() < 0.5:
            field = field + camera  # motion relative to the background
        pair = move(_texture(photos, height, width, rng), shape, field, pair)
    return _seen(pair, rng)


def at_scales(photos: Sequence[Picture], height: int, width: int) -> list[Picture]:
    """Every photograph at several scales, for textures of `random_pair`. The smallest still covers a picture of
    height x width with its margins."""
    least = height + 2 * MARGIN, width + 2 * MARGIN
    found = []
    for photo in photos:
        h, w = photo.shape[:2]
        most = min(h / least[0], w / least[1])
        for shrink in {most if most < 1 else 1.0, *(s for s in (1.4, 2.0, 2.8) if s <= most)}:
            size = max(least[1], round(w / shrink)), max(least[0], round(h / shrink))
            smooth = cv2.INTER_AREA if shrink > 1 else cv2.INTER_CUBIC
            found.append(np.asarray(cv2.resize(photo, size, interpolation=smooth), np.uint8))
    return found


def move(texture: Picture, shape: Plane | None, flow: Field, behind: Pair | None) -> Pair:
    """Put a layer with motion `flow` in front of a pair.

    texture, shape   [h + 2 MARGIN, w + 2 MARGIN]: colour and opacity, 0 to 1, in the previous picture
    behind           the pair behind it; None, or shape None: the layer is a background
    """
    h, w = flow.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    x, y = x + flow[..., 0] + np.float32(MARGIN), y + flow[..., 1] + np.float32(MARGIN)
    inner = (slice(MARGIN, MARGIN + h), slice(MARGIN, MARGIN + w))
    cur = np.asarray(cv2.remap(texture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101), np.uint8)
    prev = np.ascontiguousarray(texture[inner])
    if shape is None or behind is None:
        return Pair(cur, prev, flow)
    over_cur = np.asarray(cv2.remap(shape, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)
    over_prev = np.ascontiguousarray(shape[inner])
    return Pair(
        np.asarray(cv2.blendLinear(cur, behind.cur, over_cur, 1 - over_cur), np.uint8),
        np.asarray(cv2.blendLinear(prev, behind.prev, over_prev, 1 - over_prev), np.uint8),
        np.where(over_cur[..., None] > 0.5, flow, behind.flow),
    )


def affine(height: int, width: int, matrix: NDArray[np.float64], shift: tuple[float, float],
           centre: tuple[float, float]) -> Field:  # fmt: skip
    """flow(p) = matrix (p - centre) + shift."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    (a, b), (c, d) = matrix.astype(np.float32)
    return np.stack((a * x + b * y + np.float32(shift[0]), c * x + d * y + np.float32(shift[1])), 2)


def thin_plate(height: int, width: int, points: NDArray[np.float64], values: NDArray[np.float64]) -> Field:
    """The smoothest field with `values` [n,2] at `points` [n,2] (x, y): U(r) = r^2 log r^2 and an affine part."""
    n = len(points)
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = _bend(points, points)
    system[:n, n:] = np.column_stack((np.ones(n), points))
    system[n:, :n] = system[:n, n:].T
    weights = np.linalg.solve(system, np.concatenate((values, np.zeros((3, 2)))))
    rows, columns = height // SPLINE_CELL + 2, width // SPLINE_CELL + 2
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) * float(SPLINE_CELL)
    where = np.column_stack((x, y))
    coarse = _bend(where, points) @ weights[:n] + weights[n] + where @ weights[n + 1 :]
    y, x = np.mgrid[:height, :width].astype(np.float32) / SPLINE_CELL
    coarse = coarse.reshape(rows, columns, 2).astype(np.float32)
    return np.asarray(cv2.remap(coarse, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def batch(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """(cur, prev, flow): float32 [n,3,h,w] in [0,1] twice, [n,2,h,w] pixels."""
    flow = torch.from_numpy(np.stack([pair.flow for pair in pairs])).permute(0, 3, 1, 2).contiguous()
    return to_tensor([pair.cur for pair in pairs]), to_tensor([pair.prev for pair in pairs]), flow


def _bend(to: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = ((to[:, None] - points[None]) ** 2).sum(2)
    return np.asarray(squared * np.log(np.maximum(squared, 1e-12)))


def _motion(
    height: int, width: int, rng: np.random.Generator, centre: tuple[float, float], fastest: float = FASTEST_PX
) -> Field:
    """A random motion. Slow motion is much more frequent than fast motion, and one in twelve is 0."""
    if rng.random() < 1 / 12:
        return np.zeros((height, width, 2), np.float32)
    pace = float(np.exp(rng.uniform(np.log(0.2), np.log(max(fastest, 0.5)))))
    angle = rng.uniform(0, 2 * np.pi)
    wild = min(1.0, pace / 8) * rng.random() ** 2
    turn, zoom = rng.normal(0, 0.08 * wild), rng.normal(0, 0.08 * wild, 2) + rng.normal(0, 0.08 * wild)
    matrix = np.array([[zoom[0], -turn], [turn, zoom[1]]]) + rng.normal(0, 0.02 * wild, (2, 2))
    field = affine(height, width, matrix, (pace * np.cos(angle), pace * np.sin(angle)), centre)
    if rng.random() < 0.5:
        side = int(rng.integers(2, 5))
        y, x = (np.mgrid[:side, :side] + rng.uniform(0.2, 0.8, (2, side, side))).reshape(2, -1) / side
        points = np.column_stack((x * width, y * height))
        bent = rng.normal(0, min(4.0, 0.4 * pace) * rng.random(), (side * side, 2))
        field = field + thin_plate(height, width, points, bent)
    return field


def _texture(photos: Sequence[Picture], height: int, width: int, rng: np.random.Generator) -> Picture:
    """A random part of a photograph with its margin; one in ten is a smooth gradient."""
    photo = photos[int(rng.integers(len(photos)))]
    size = width + 2 * MARGIN, height + 2 * MARGIN
    if rng.random() < 0.1:
        ends = rng.integers(0, 256, (2, 2, 3)).astype(np.float32)
        ends = ends[:1, :1] + (ends - ends[:1, :1]) * np.float32(rng.random() ** 2)
        return np.asarray(cv2.resize(ends, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8))
    h, w = photo.shape[:2]
    left, top = int(rng.integers(0, w - size[0] + 1)), int(rng.integers(0, h - size[1] + 1))
    part = photo[top : top + size[1], left : left + size[0]]
    return jitter(np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part), rng)


def _shape(height: int, width: int, rng: np.random.Generator) -> tuple[Plane, tuple[float, float]]:
    """(opacity with the margin, centre without it): a blob, sometimes with a hole, or some strokes, or both."""
    size = height + 2 * MARGIN, width + 2 * MARGIN
    cover = np.zeros(size, np.uint8)
    centre = rng.uniform(0, width), rng.uniform(0, height)
    middle = np.array(centre) + MARGIN
    radius = float(np.exp(rng.uniform(np.log(8), np.log(0.4 * min(height, width)))))
    kind = rng.random()
    if kind < 0.75:
        _blob(cover, middle, radius, 255, rng)
        if rng.random() < 0.25:
            _blob(cover, middle, 0.5 * radius, 0, rng)
    if kind > 0.5:
        for _ in range(int(rng.integers(1, 5))):
            ends = (middle + rng.normal(0, radius, (2, 2))).astype(np.int32)
            cv2.line(cover, ends[0].tolist(), ends[1].tolist(), 255, int(rng.integers(2, 10)), cv2.LINE_AA)
    soft = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.3, 1.0))
    return soft.astype(np.float32) / np.float32(255), centre


def _blob(cover: NDArray[np.uint8], middle: NDArray[np.float64], radius: float, value: int,
          rng: np.random.Generator) -> None:  # fmt: skip
    corners = int(rng.integers(3, 14))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    if rng.random() < 0.5:  # round
        fine = np.linspace(0, 2 * np.pi, 60)
        radii = 1 + sum(rng.normal(0, 0.25 / k) * np.cos(k * fine + rng.uniform(0, 6)) for k in range(1, 5))
        angles = fine
    else:
        radii = rng.uniform(0.5, 1.2, corners)
    ring = np.column_stack((np.cos(angles) * radii * rng.uniform(0.4, 1.0), np.sin(angles) * radii))
    tilt = rng.uniform(0, np.pi)
    ring = ring @ np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    cv2.fillPoly(cover, [(middle + radius * ring).round().astype(np.int32)], value, cv2.LINE_AA)


def _grain(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Normal noise, as a random part of noise that was drawn once, since drawing it takes as long as all the rest."""
    start = int(rng.integers(0, len(_GRAIN) - count))
    return _GRAIN[start : start + count]


def _seen(pair: Pair, rng: np.random.Generator) -> Pair:
    """The pair as seen by a camera: sometimes blurred, with slightly different light in each picture, and noise."""
    blur, noise = rng.uniform(0.4, 1.2) if rng.random() < 0.3 else 0.0, rng.exponential(1.5)
    out = []
    for picture in (pair.cur, pair.prev):
        x = picture.astype(np.float32)
        if blur:
            x = np.asarray(cv2.GaussianBlur(x, (0, 0), blur), np.float32)
        x = x * np.float32(np.exp(rng.normal(0, 0.03))) + np.float32(rng.normal(0, 2))
        x = x + np.float32(noise) * _grain(x.size, rng).reshape(x.shape)
        out.append(np.clip(x, 0, 255).astype(np.uint8))
    return Pair(out[0], out[1], pair.flow)
