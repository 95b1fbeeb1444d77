"""Typical inputs of the UNet, made from photographs. The ranges of its activations are measured with them.

Some photographs, pages of text and a night picture are sampled in every style with one to four steps. Then the UNet is
fed the entry latent once more, with the result fused in, as for the next frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .documents import page
from .levels import alphas_and_sigmas
from .photographs import Picture

Latent = NDArray[np.float32]
Feed = dict[str, NDArray[np.float32]]

STEPS = 4  # largest number of steps of a frame
LONG_SIDES = (256, 384)  # pixels, used in turn
PHOTOS, PAGES = 8, 2  # largest numbers of photographs and pages
PAGE_SIZE = (384, 288)  # pixels, before scaling
DARK = 8  # factor by which the night picture is darker
FUSED = np.float32(0.8)  # share of the past: the default weight of fusion


class TrainedNetworks:
    """The networks of a bundle in ONNX Runtime, from the bytes of their files."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # a second thread is of little use on a busy machine
        self._sessions = {
            name: onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            for name, data in files.items()
        }

    def encode(self, rgb: Latent) -> Latent:
        """rgb [1,3,h,w] in [0,1] -> latent."""
        return self._run("encoder", {"rgb": rgb})

    def decode(self, latent: Latent) -> Latent:
        """Latent -> rgb [1,3,h,w] in [0,1]."""
        return self._run("decoder", {"latent": latent})

    def predict(self, feed: Feed, unet: str = "unet") -> Latent:
        """The styled x0."""
        return self._run(unet, feed)

    def _run(self, name: str, feed: Feed) -> Latent:
        (out,) = self._sessions[name].run(None, feed)
        return np.asarray(out, np.float32)


def feeds(
    networks: TrainedNetworks,
    photos: Sequence[Picture],
    vectors: Sequence[Sequence[float]],
    timesteps: tuple[float, float],
    seed: int,
) -> Iterator[Feed]:
    """Yield typical inputs of the UNet.

    vectors    vectors of the styles
    timesteps  first and last timestep of sampling: `steps.top` and `steps.floor` of the bundle
    """
    table = np.asarray(alphas_and_sigmas(), np.float32)
    top, floor = timesteps
    pages = [page(photos, PAGE_SIZE, np.random.default_rng([seed, PHOTOS, i])) for i in range(PAGES)]
    for i, picture in enumerate([*photos[:: math.ceil(len(photos) / PHOTOS)], *pages, photos[0] // DARK]):
        z = networks.encode(as_input(picture, LONG_SIDES[i % len(LONG_SIDES)]))
        noise = np.random.default_rng([seed, i]).standard_normal(z.shape).astype(np.float32)
        for s, vector in enumerate(vectors):
            steps = 1 + (i + s) % STEPS
            style, clean = np.array([vector], np.float32), z
            for k in range(steps):
                level = table[round(floor + (top - floor) * (steps - k) / steps)]
                yield (feed := feed_of(clean, z, noise, level, style))
                clean = networks.predict(feed)
            past = networks.encode(networks.decode(clean))
            yield feed_of((1 - FUSED) * z + FUSED * past, z, noise, table[round(top)], style)


def as_input(photo: Picture, long_side: int) -> Latent:
    """A photograph as rgb [1,3,h,w] in [0,1], scaled to `long_side`, with sides that are multiples of 8."""
    h, w = photo.shape[:2]
    k = long_side / max(h, w)
    size = (max(64, round(w * k / 8) * 8), max(64, round(h * k / 8) * 8))
    scaled = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def feed_of(
    clean: Latent, source: Latent, noise: Latent, level: NDArray[np.float32], style: NDArray[np.float32]
) -> Feed:
    """The inputs of the UNet for `clean` with noise at `level` (alpha, sigma), the source latent and a style [1,S]."""
    x = level[0] * clean + level[1] * noise
    return {"x": x.astype(np.float32), "source": source, "level": level[None], "style": style}
