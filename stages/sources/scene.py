"""A synthetic moving scene with a flow that is known in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating[Any]]
Picture = npt.NDArray[np.uint8]

MOTIONS = ("pan", "rotate", "zoom", "objects", "still")
FINE = 2  # texels a pixel; linear sampling of the smooth texture is then exact to a third of a level
_SOFT = 1.25  # px on either side of an object's edge, over which it fades
RIM = 3.0  # px on either side of an edge that belong to no single layer: the fade, and the reach of a bicubic kernel


@dataclass(frozen=True, slots=True)
class SceneLayer:
    """A textured disc or rounded box that moves and rotates.

    half      half its width and height, px
    corner    radius of its corners, px
    centre, reach, rhythm, phase    its centre at frame t is centre + reach sin(rhythm t + phase), px and radians
    spin      rotation, radians a frame
    sprite    uint8 [s, s, 4], premultiplied colour and alpha
    """

    half: Float
    corner: float
    centre: Float
    reach: Float
    rhythm: Float
    phase: Float
    spin: float
    sprite: Picture

    def pose(self, t: int) -> Float:
        """Matrix [2, 3] from picture coordinates to the layer's coordinates, whose origin is its centre."""
        x, y = self.centre + self.reach * np.sin(self.rhythm * t + self.phase)
        return _about(self.spin * t, 1.0, float(x), float(y), 0.0, 0.0)

    def distance(self, points: Float) -> Float:
        """Signed distance, px, of points [..., 2] in the layer's coordinates to its edge; negative inside."""
        beyond = np.abs(points) - (self.half - self.corner)
        outside = np.hypot(np.maximum(beyond[..., 0], 0), np.maximum(beyond[..., 1], 0))
        return np.asarray(outside + np.minimum(beyond.max(-1), 0) - self.corner)


class Scene:
    """A texture with a motion. Everything is a function of the frame number t; there is no state.

    width, height  size of the picture, px
    motion         one of MOTIONS
    texture        uint8 [n, n, 3], periodic, with FINE texels a pixel: see `texture`
    number         scenes with different numbers look different with the same texture
    """

    def __init__(
        self, width: int, height: int, motion: str, texture: Picture, rng: np.random.Generator, number: int = 0
    ) -> None:
        self.width, self.height = width, height
        self._negative = number % 2 == 1
        self._quarter = np.pi / 2 * (number % 4)
        self._motion = motion
        self._texture = texture
        self._start = rng.uniform(0, texture.shape[0] / FINE, 2)
        self._heading = float(rng.uniform(0, 2 * np.pi))
        self._layers = _draw_layers(width, height, texture, rng) if motion == "objects" else []

    def picture(self, t: int) -> Picture:
        """Picture at frame t, uint8 RGB [height, width, 3]."""
        view = FINE * self._view(t)
        view[:, 2] += (FINE - 1) / 2  # align the centres of pixels and texels instead of their corners
        rgb = _sampled(self._texture, view, (self.width, self.height))
        for layer in self._layers:
            _paint(rgb, layer, layer.pose(t))
        return 255 - rgb if self._negative else rgb

    def flow(self, t: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Flow from frame t to t-1: (flow_cur_to_prev float32 [h, w, 2] px, valid bool [h, w]).

        valid is False where the point was occluded or outside in frame t-1, and within RIM of an object's edge.
        """
        here = np.stack(np.meshgrid(np.arange(self.width), np.arange(self.height)), -1).astype(np.float64)
        before = _apply(_then(self._view(t), _inverse(self._view(t - 1))), here)
        for layer in self._layers:
            inside = layer.distance(_apply(layer.pose(t), here)) < 0
            moved = _apply(_then(layer.pose(t), _inverse(layer.pose(t - 1))), here)
            before[inside] = moved[inside]
        limit = np.array([self.width - 1, self.height - 1])
        valid = ((before >= 0) & (before <= limit)).all(-1)
        owner_here, pure_here = self._owner(t, here)
        owner_before, pure_before = self._owner(t - 1, before)
        valid &= (owner_here == owner_before) & pure_here & pure_before
        return (before - here).astype(np.float32), np.asarray(valid)

    def _owner(self, t: int, points: Float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The visible layer at each of `points` at frame t, and True where only this layer is visible."""
        owner = np.full(points.shape[:-1], -1)
        pure = np.ones(points.shape[:-1], bool)
        for index, layer in enumerate(self._layers):
            distance = layer.distance(_apply(layer.pose(t), points))
            owner[distance < 0] = index
            pure[distance < -RIM] = True  # this layer hides all layers below
            pure[np.abs(distance) <= RIM] = False
        return owner, pure

    def _view(self, t: int) -> Float:
        """Matrix [2, 3] from picture coordinates to the texture's coordinates at frame t."""
        turn, scale, way = 0.0, 1.0, 0.0
        if self._motion == "pan":
            way = 1.9 * t + 9.0 * np.sin(0.13 * t)  # 0.7 to 3.1 px a frame
        elif self._motion == "objects":
            way = 0.6 * t
        elif self._motion == "rotate":
            turn = np.radians(0.6) * t
        elif self._motion == "zoom":
            scale = float(np.exp(0.25 * np.sin(2 * np.pi * t / 100)))
        heading = np.array([np.cos(self._heading), np.sin(self._heading)])
        x, y = (self._start + way * heading) % (self._texture.shape[0] / FINE)
        return _about(turn + self._quarter, scale, (self.width - 1) / 2, (self.height - 1) / 2, float(x), float(y))


def texture(side: int, rng: np.random.Generator) -> Picture:
    """A texture of noise and shapes with a period of `side` px: uint8 [FINE side, FINE side, 3].

    It has hardly any detail finer than 6 px, so that sub-pixel motion does not change it.
    """
    shapes = np.full((side, side, 3), 128, np.uint8)
    for _ in range(side * side // 2000):
        centre, half = rng.integers(0, side, 2), rng.integers(4, 26, 2)
        colour = rng.integers(20, 236, 3).tolist()
        outline = cv2.ellipse2Poly((0, 0), half.tolist(), int(rng.integers(180)), 0, 360, int(rng.choice([6, 90, 120])))
        for shift in _wraps(centre, int(half.max()), side):
            cv2.fillPoly(shapes, [outline + shift], colour)
    grey, *tints = (_noise(side, rng) for _ in range(4))
    rgb = shapes + np.stack([26 * grey + 8 * tint for tint in tints], -1)
    wide = cv2.copyMakeBorder(rgb.clip(0, 255), 8, 8, 8, 8, cv2.BORDER_WRAP)
    smooth = cv2.GaussianBlur(wide, (0, 0), 1.35)
    fine = np.asarray(cv2.resize(smooth, None, fx=FINE, fy=FINE, interpolation=cv2.INTER_CUBIC))
    inner = slice(8 * FINE, -8 * FINE)
    return np.asarray(cv2.convertScaleAbs(fine[inner, inner]), np.uint8)


def _noise(side: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Periodic noise of unit variance with equal power in each octave below 128 px, as in photographs."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    waves = rng.standard_normal((side, side // 2 + 1, 2), np.float32) @ np.array([1, 1j], np.complex64)
    noise = np.fft.irfft2(waves / np.maximum(f, 1 / 128), (side, side))
    return np.asarray(noise / noise.std(), np.float32)


def _draw_layers(width: int, height: int, base: Picture, rng: np.random.Generator) -> list[SceneLayer]:
    layers = []
    unit = min(width, height)
    frame = np.array([width, height], np.float64)
    for _ in range(6):
        half = rng.uniform(0.09, 0.2, 2) * unit
        round_one = rng.random() < 0.5
        half = np.full(2, half[0]) if round_one else half
        reach = frame * rng.uniform(0.15, 0.35, 2)
        layer = SceneLayer(
            half=half,
            corner=float(half[0] if round_one else half.min() * 0.3),
            centre=frame * rng.uniform(0.35, 0.65, 2),
            reach=reach,
            rhythm=rng.uniform(1.0, 3.0, 2) / reach,  # at most 3 px a frame along each axis
            phase=rng.uniform(0, 2 * np.pi, 2),
            spin=float(rng.uniform(-0.02, 0.02)),
            sprite=base[:1, :1],
        )
        layers.append(replace(layer, sprite=_sprite(layer, base, rng)))
    return layers


def _sprite(layer: SceneLayer, base: Picture, rng: np.random.Generator) -> Picture:
    side = FINE * (2 * int(np.ceil(np.hypot(*layer.half) + _SOFT + 2)) + 1)
    x, y = rng.integers(0, base.shape[0], 2)
    patch = np.take(np.take(base, np.arange(y, y + side), 0, mode="wrap"), np.arange(x, x + side), 1, mode="wrap")
    colour = 0.55 * patch[..., ::-1] + 0.45 * rng.integers(0, 256, 3)
    own = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) - (side - 1) / 2) / FINE
    alpha = np.clip(0.5 - layer.distance(own) / (2 * _SOFT), 0, 1)[..., None]
    alpha = alpha * alpha * (3 - 2 * alpha)
    return np.concatenate([colour * alpha + 0.5, 255 * alpha + 0.5], -1).clip(0, 255).astype(np.uint8)


def _paint(rgb: Picture, layer: SceneLayer, pose: Float) -> None:
    """Blend a layer into `rgb`, in place."""
    middle = (layer.sprite.shape[0] - 1) / 2
    x, y = _inverse(pose)[:, 2]
    reach = middle / FINE
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    right, bottom = min(rgb.shape[1], int(x + reach) + 2), min(rgb.shape[0], int(y + reach) + 2)
    if left >= right or top >= bottom:
        return
    sample = FINE * pose
    sample[:, 2] += sample[:, :2] @ np.array([left, top]) + middle
    drawn = _sampled(layer.sprite, sample, (right - left, bottom - top), cv2.BORDER_CONSTANT)
    under = rgb[top:bottom, left:right]
    clear = cv2.cvtColor(255 - drawn[..., 3], cv2.COLOR_GRAY2RGB)
    cv2.add(cv2.multiply(under, clear, scale=1 / 255), cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB), under)


def _sampled(texels: Picture, m: Float, size: tuple[int, int], border: int = cv2.BORDER_WRAP) -> Picture:
    """A picture of `size` (width, height) whose value at p is that of `texels` at m p."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(texels, m, size, flags=flags, borderMode=border), np.uint8)


def _wraps(centre: npt.NDArray[np.int64], reach: int, side: int) -> Sequence[npt.NDArray[np.int64]]:
    """All positions at which to draw a shape on a periodic canvas, so that it continues across the borders."""
    xs, ys = ([int(c) + k * side for k in (-1, 0, 1) if -reach < c + k * side < side + reach] for c in centre)
    return [np.array([x, y]) for x in xs for y in ys]


def _about(turn: float, scale: float, x: float, y: float, to_x: float, to_y: float) -> Float:
    """The affine map that takes (x, y) to (to_x, to_y), with a rotation by `turn` radians and a scale about it."""
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[c, s, to_x - c * x - s * y], [-s, c, to_y + s * x - c * y]])


def _apply(m: Float, points: Float) -> Float:
    return points @ m[:, :2].T + m[:, 2]


def _inverse(m: Float) -> Float:
    linear = np.linalg.inv(m[:, :2])
    return np.concatenate([linear, -(linear @ m[:, 2:])], 1)


def _then(first: Float, second: Float) -> Float:
    """The map that applies `first`, then `second`."""
    return np.concatenate([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]], 1)
