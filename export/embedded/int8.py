"""The UNet in 8-bit integers, in addition to the one in single precision. It is twice as fast on processors with VNNI.

Its first two convolutions, the last one and those of the strokes stay in float, since rounding costs most there. The
encoder and decoder stay in float too: a fused picture passes them with every frame, so rounding errors would add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from ..agreement import psnr
from ..integer_graph import convolutions, in_integers, ranges
from ..onnx_writing import ExportError
from . import calibration
from .calibration import TrainedNetworks, as_input, feed_of, feeds
from .levels import alphas_and_sigmas
from .photographs import Picture
from .strokes import FIXED

DRAWN = ("light", *(f"strokes.{name}" for name in FIXED), "brush", "pressure", "relief")  # thresholds amplify rounding
KEPT = ("enter", "to_half", "leave", *DRAWN)
NAME = "unet.int8.onnx"
LEAST_DB = 30.0


def unet_int8(
    files: Mapping[str, bytes],
    photos: Sequence[Picture],
    vectors: Sequence[Sequence[float]],
    timesteps: tuple[float, float],
    seed: int,
) -> tuple[bytes, float]:
    """The file of the UNet in integers, and its least `fidelity` in dB.

    files  files of encoder, UNet and decoder, by network

    Other arguments: see `calibration.feeds`. The same seed on the same machine gives the same bytes. Raises ExportError
    if the fidelity in some style is below LEAST_DB.
    """
    model = onnx.load_model_from_string(files["unet"])
    weights = convolutions(model, KEPT)
    seen = ranges(model, weights, feeds(TrainedNetworks(files), photos, vectors, timesteps, seed))
    made = in_integers(model, weights, seen).SerializeToString()
    least = min(fidelity({**files, "int8": made}, photos[-1], vectors, timesteps, seed))
    if least < LEAST_DB:
        raise ExportError(f"{NAME}: pictures are {least:.1f} dB from those of unet.onnx, {LEAST_DB:g} are needed")
    return bytes(made), least


def fidelity(
    files: Mapping[str, bytes],
    photo: Picture,
    vectors: Sequence[Sequence[float]],
    timesteps: tuple[float, float],
    seed: int,
) -> list[float]:
    """PSNR in dB between pictures by `int8` and by `unet` of `files`, after one pass, for each style."""
    networks = TrainedNetworks(files)
    z = networks.encode(as_input(photo, calibration.LONG_SIDES[0]))
    noise = np.random.default_rng(seed).standard_normal(z.shape).astype(np.float32)
    level = np.asarray(alphas_and_sigmas(), np.float32)[round(timesteps[0])]
    found = []
    for vector in vectors:
        feed = feed_of(z, z, noise, level, np.array([vector], np.float32))
        wanted, got = (networks.decode(networks.predict(feed, unet)) for unet in ("unet", "int8"))
        found.append(psnr(got, wanted))
    return found
