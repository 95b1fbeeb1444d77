"""RAFT-small: optical flow by iterated look-ups (Teed and Deng 2020), forward and backward in one call."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from .onnx_writing import load_weights
from .raft_correlation import look_up, pyramids_both_ways
from .raft_layers import CONTEXT, HIDDEN, FeatureEncoder, Update

CELL = 8
SMALLEST_PX = 64  # gives one cell at the coarsest level of the correlations
ITERATIONS = 12


class RaftSmall(nn.Module):
    """Optical flow between two pictures, in both directions.

    Input:   cur, prev [b,3,h,w] float32 in [0,1], h and w of 64 or more.
    Returns  flow       [b,2,h,w] float32 pixels, current to previous: prev(p + flow(p)) is what cur shows at p
             flow_back  [b,2,h,w] float32 pixels, previous to current

    If h or w is no multiple of 8, pictures are padded on the right and at the bottom by repeating the border, and the
    flow is cropped.
    """

    def __init__(self, iterations: int = ITERATIONS) -> None:
        super().__init__()
        self.iterations = iterations
        self.fnet = FeatureEncoder(128, normed=True)
        self.cnet = FeatureEncoder(HIDDEN + CONTEXT, normed=False)
        self.update_block = Update()

    def forward(self, cur: Tensor, prev: Tensor) -> tuple[Tensor, Tensor]:
        """(flow, flow_back). Each picture is encoded once; the two directions are rows of one batch."""
        height, width = int(cur.shape[-2]), int(cur.shape[-1])
        both = pad(torch.cat((cur, prev)), [0, -width % CELL, 0, -height % CELL], "replicate") * 2 - 1
        there_and_back = self._flow(both)[..., :height, :width]
        flow, flow_back = there_and_back.chunk(2)
        return flow, flow_back

    def _flow(self, both: Tensor) -> Tensor:
        """[2b,3,8h,8w] in [-1,1], current before previous -> [2b,2,8h,8w] pixels."""
        dtype = self.fnet.conv1.weight.dtype  # for convolutions; positions and flow are always float32
        both = both.to(dtype)
        pyramid = pyramids_both_ways(*self.fnet(both).float().chunk(2))
        hidden, context = self.cnet(both).split((HIDDEN, CONTEXT), dim=1)
        hidden, of_context = hidden.tanh(), self.update_block.gru.of_context(context.relu())
        h, w = hidden.shape[-2:]
        y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (h, w)), indexing="ij")
        cells = torch.stack((x, y)).to(both.device)
        flow = both.new_zeros(1, 2, h, w, dtype=torch.float32).expand(both.shape[0], -1, -1, -1)
        for _ in range(self.iterations):
            correlation = look_up(pyramid, cells + flow).to(dtype)
            hidden, step = self.update_block(hidden, of_context, correlation, flow.to(dtype))
            flow = flow + step.float()
        return CELL * interpolate(flow, scale_factor=CELL, mode="bilinear", align_corners=True)


def load_raft_small(weights: Path, iterations: int = ITERATIONS) -> RaftSmall:
    """The network with the published weights, on the CPU. Only tensors are unpickled.

    Raises ExportError: the file cannot be read, or does not have the weights of RAFT-small.
    """
    return load_weights(RaftSmall(iterations), weights, prefix="module.")
