"""NV12 as RGB: as swscale makes it on the host, within one level."""

import cv2
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame

from warpfuse.stages.formulas.nv12 import rgb_of
from warpfuse.stages.sources.display import Display

BT709, BT601, BT2020 = 1, 5, 9
LIMITED, FULL = 1, 2


def pictures(h, w):
    """Luma and chroma: soft, and of every pixel another value, both as colours that are nearly in range."""
    random = np.random.default_rng(h * w)
    for scale in (8, 1):
        y, u, v = (
            cv2.resize(random.integers(64, 192, (h // k // scale + 2, w // k // scale + 2)).astype(np.uint8), size)
            for k, size in ((1, (w, h)), (2, (w // 2, h // 2)), (2, (w // 2, h // 2)))
        )  # fmt: skip
        yield y, np.stack((u, v), -1)


def on_host(y, uv, matrix, colours):
    h, w = y.shape
    frame = VideoFrame.from_ndarray(np.concatenate((y, uv.reshape(h // 2, w))), format="nv12")
    frame.colorspace, frame.color_range = matrix, colours
    return Display(frame, None, None)(frame).astype(int)


def on_card(y, uv, matrix, colours):
    rgb = rgb_of(torch.from_numpy(y), torch.from_numpy(uv), matrix, full=colours == FULL)
    return (255 * rgb[0].permute(1, 2, 0)).round().int().numpy()


@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
@pytest.mark.parametrize("colours", [LIMITED, FULL])
@pytest.mark.parametrize("size", [(16, 16), (70, 98)])
def test_it_is_swscales_within_one_level(size, matrix, colours):
    for y, uv in pictures(*size):
        host = on_host(y, uv, matrix, colours)
        gap = np.abs(on_card(y, uv, matrix, colours) - host)
        assert gap.max() <= 1 and (gap > 0).mean() < 0.03
        other = on_card(y, uv, BT601 if matrix == BT709 else BT709, colours)
        assert np.abs(other - host).max() > 4, "the control: another matrix is seen"
