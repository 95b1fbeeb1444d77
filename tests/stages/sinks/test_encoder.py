"""The encoder: the same pictures give the same bytes, at every width."""

import io
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from warpfuse.stages.sinks.encoder import FORMATS, Encoder, Format

MP4 = FORMATS[".mp4"]


def pictures(width, height, count=12):
    random = np.random.default_rng(0)
    coarse = np.kron(random.integers(0, 256, (height // 8 + 4, width // 8 + 4, 3)), np.ones((8, 8, 1)))
    for i in range(count):
        noise = random.integers(-20, 20, (height, width, 3))
        yield np.clip(coarse[i : i + height, 2 * i : 2 * i + width] + noise, 0, 255).astype(np.uint8)


def encoded(width, height, fmt: Format = MP4):
    with av.open(io.BytesIO(), "w", format="mp4") as out:
        encoder = Encoder(out, fmt, (width, height), Fraction(25), Fraction(1, 25), 1)
        packets = []
        for number, picture in enumerate(pictures(width, height)):
            packets += encoder.encode(picture, number * 40_000_000)
        return b"".join(bytes(packet) for packet in packets + encoder.flush())


@pytest.mark.parametrize("size", [(96, 64), (160, 96), (320, 176), (256, 144)])
def test_the_same_pictures_give_the_same_bytes(size):
    assert len({encoded(*size) for _ in range(8)}) == 1


def test_the_option_that_is_left_out_is_why():
    """The control: it is left out at this width and kept at the other, and where it can be told it is there."""
    with_it = replace(MP4, options={**MP4.options, "x264-params": "mbtree=1"})
    without = replace(MP4, options={**MP4.options, "x264-params": "mbtree=0"})
    assert encoded(320, 176) == encoded(320, 176, without)
    assert encoded(256, 144) == encoded(256, 144, with_it) != encoded(256, 144, without)
