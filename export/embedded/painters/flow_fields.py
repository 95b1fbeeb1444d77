"""Filters along and across the edges of a picture: structure tensor, line integral, difference of Gaussians, Kuwahara.

Kyprianidis and Döllner 2009 (flow-based difference of Gaussians), Kang et al. 2007 (coherent lines), Kyprianidis et
al. 2010 (anisotropic Kuwahara filter with polynomial weights). No filter reaches further than about 70 pixels, and none
uses statistics of the whole picture, since these change from frame to frame.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from .colour import Map, Rgb, to_lab

Field = NDArray[np.float32]  # [h,w,2] (x, y), unit vectors
GROUND = 2e-5  # structure tensor of the direction on empty ground: above sensor noise, below a faint edge


def blur(x: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """A Gaussian of `sigma` pixels, mirrored at the borders."""
    return np.asarray(cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def tangents(rgb: Rgb, sigma: float = 3.0, slant: float = 0.35) -> tuple[Field, Map]:
    """(tangents of edges, their certainty in [0,1]), from the structure tensor of Lab, smoothed by `sigma` pixels.

    Without edges nearby, the wider neighbourhood determines the tangent, and on empty ground it is `slant`, radians.
    """
    lab = blur(to_lab(rgb), 1.0) / np.float32(100)
    gx, gy = (cv2.Scharr(lab, cv2.CV_32F, *axis) / 32 for axis in ((1, 0), (0, 1)))
    tensor = np.stack([(gx * gx).sum(-1), (gx * gy).sum(-1), (gy * gy).sum(-1)], -1)
    tensor = blur(tensor, sigma) + 0.15 * blur(tensor, 3 * sigma) + 0.06 * blur(tensor, 22.0)
    nx, ny = -math.sin(slant), math.cos(slant)
    e, f, g = np.moveaxis(tensor + np.float32(GROUND) * np.array([nx * nx, nx * ny, ny * ny], np.float32), -1, 0)
    normal = 0.5 * np.arctan2(2 * f, e - g)
    root = np.sqrt((e - g) ** 2 + 4 * f * f)
    return np.stack([-np.sin(normal), np.cos(normal)], -1).astype(np.float32), (root / (e + g + 1e-9)).astype(
        np.float32
    )


def along(x: NDArray[np.float32], t: Field, sigma: float) -> NDArray[np.float32]:
    """x [h,w] or [h,w,c] smoothed by a Gaussian of `sigma` pixels along the streamlines of t (a line integral)."""
    h, w = t.shape[:2]
    rows, columns = np.mgrid[0:h, 0:w].astype(np.float32)
    out = np.array(x, np.float32)
    total = 1.0
    for way in (1.0, -1.0):
        px, py, d = columns, rows, t * np.float32(way)
        for s in range(1, max(2, round(2.2 * sigma)) + 1):
            px, py = np.clip(px + d[..., 0], 0, w - 1), np.clip(py + d[..., 1], 0, h - 1)
            weight = math.exp(-0.5 * (s / sigma) ** 2)
            sample = np.asarray(cv2.remap(x, px, py, cv2.INTER_LINEAR), np.float32)
            out += np.multiply(sample, weight, dtype=np.float32)
            total = total + weight
            here = np.asarray(cv2.remap(t, px, py, cv2.INTER_NEAREST), np.float32)
            d = here * np.where((here * d).sum(-1, keepdims=True) < 0, np.float32(-1), np.float32(1))
    return np.asarray(out / np.float32(total), np.float32)


def across(x: Map, t: Field, sigmas: tuple[float, ...]) -> list[Map]:
    """x [h,w] smoothed across edges by Gaussians, one result for each of `sigmas`, pixels."""
    h, w = x.shape
    rows, columns = np.mgrid[0:h, 0:w].astype(np.float32)
    reach = round(2.5 * max(sigmas))
    sums, totals = [np.zeros_like(x) for _ in sigmas], [0.0 for _ in sigmas]
    for s in range(-reach, reach + 1):
        sample = cv2.remap(
            x, columns - s * t[..., 1], rows + s * t[..., 0], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        for i, sigma in enumerate(sigmas):
            weight = math.exp(-0.5 * (s / sigma) ** 2)
            sums[i] += np.float32(weight) * sample
            totals[i] += weight
    return [np.asarray(a / b, np.float32) for a, b in zip(sums, totals, strict=True)]


def kuwahara(rgb: Rgb, t: Field, sure: Map, radius: float, sharpness: float) -> Rgb:
    """Anisotropic Kuwahara filter, for flat areas with sharp borders: a pixel gets the mean of eight sectors of an
    ellipse along the edge, weighted towards those with small variance."""
    x, field, certainty = (np.ascontiguousarray(a, np.float32) for a in (rgb, t, sure))
    return np.asarray(_kuwahara(x, field, certainty, radius, sharpness))


@njit(cache=True, fastmath=True)  # type: ignore[misc, unused-ignore]
def _kuwahara(x, t, sure, radius, q):  # type: ignore[no-untyped-def]
    h, w = x.shape[:2]
    out = np.empty_like(x)
    sums = np.empty((8, 7), np.float32)  # weight, three means, three squares
    z = np.empty(8, np.float32)
    zeta, half = np.float32(0.33), np.float32(math.sqrt(0.5))
    eta = np.float32((0.33 + math.cos(math.pi * 3 / 8)) / math.sin(math.pi * 3 / 8) ** 2)
    for i in range(h):
        for j in range(w):
            tx, ty = t[i, j, 0], t[i, j, 1]
            stretch = (1 + sure[i, j]) ** np.float32(0.7)
            a, b = radius * stretch, radius / stretch
            my = int(math.sqrt((a * ty) ** 2 + (b * tx) ** 2) + 0.5)
            mx = int(math.sqrt((a * tx) ** 2 + (b * ty) ** 2) + 0.5)
            sums[:] = 0
            for yy in range(max(0, i - my), min(h, i + my + 1)):
                for xx in range(max(0, j - mx), min(w, j + mx + 1)):
                    dx, dy = xx - j, yy - i
                    u = np.float32((dx * tx + dy * ty) / a)
                    v = np.float32((dy * tx - dx * ty) / b)
                    rr = u * u + v * v
                    if rr > 1:
                        continue
                    m, n = half * (u - v), half * (u + v)
                    pu, pv, pm, pn = zeta - eta * u * u, zeta - eta * v * v, zeta - eta * m * m, zeta - eta * n * n
                    z[0], z[2], z[4], z[6] = v + pu, pv - u, pu - v, u + pv
                    z[1], z[3], z[5], z[7] = n + pm, pn - m, pm - n, m + pn
                    total = np.float32(0)
                    for k in range(8):
                        z[k] = max(np.float32(0), z[k]) ** 2
                        total += z[k]
                    if total <= 0:
                        continue
                    g = np.float32(math.exp(-3.125 * rr)) / total
                    r0, r1, r2 = x[yy, xx, 0], x[yy, xx, 1], x[yy, xx, 2]
                    for k in range(8):
                        weight = z[k] * g
                        if weight > 0:
                            sums[k, 0] += weight
                            sums[k, 1] += weight * r0
                            sums[k, 2] += weight * r1
                            sums[k, 3] += weight * r2
                            sums[k, 4] += weight * r0 * r0
                            sums[k, 5] += weight * r1 * r1
                            sums[k, 6] += weight * r2 * r2
            o0 = o1 = o2 = total = np.float32(0)
            for k in range(8):
                if sums[k, 0] > 1e-6:
                    m0, m1, m2 = sums[k, 1] / sums[k, 0], sums[k, 2] / sums[k, 0], sums[k, 3] / sums[k, 0]
                    spread = abs(sums[k, 4] / sums[k, 0] - m0 * m0) + abs(sums[k, 5] / sums[k, 0] - m1 * m1)
                    spread += abs(sums[k, 6] / sums[k, 0] - m2 * m2)
                    weight = np.float32(1 / (1 + (255 * math.sqrt(spread)) ** q))
                    o0 += weight * m0
                    o1 += weight * m1
                    o2 += weight * m2
                    total += weight
            out[i, j, 0], out[i, j, 1], out[i, j, 2] = o0 / total, o1 / total, o2 / total
    return out
