"""The flow network: optical flow between two pictures in both directions, coarse to fine.

Features at a quarter, an eighth and a sixteenth of the size are shared by both directions. At a sixteenth, correlations
of all pairs of cells are computed once, and looked up twice around the flow (as in RAFT, Teed and Deng 2020). At an
eighth and a quarter, the other picture's features are warped along the flow found so far and correlated with their
neighbours (as in PWC-Net, Sun et al. 2018), which is cheap and finds the remaining flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, leaky_relu, normalize, pad

from warpfuse.export.raft_correlation import windows

COARSEST = 16  # side of the largest cell, pixels; width and height of pictures are multiples of it
WIDTHS = 16, 24, 48, 96  # channels at a half, a quarter, an eighth and a sixteenth of the size
COMPARED = {4: 8, 8: 16, 16: 64}  # side of a cell in pixels -> channels of the features that are correlated
TOLD = {4: 12, 8: 24, 16: 64}  # side of a cell -> channels passed on from the coarser size
ROUNDS = 2  # look-ups at a sixteenth
FAR, NEAR = 3, 2  # radius of a look-up in cells: at a sixteenth (there at half resolution too), and at finer sizes

Seen = Mapping[int, tuple[Tensor, Tensor]]


class TinyFlowNetwork(nn.Module):
    """Optical flow between two pictures in both directions.

    Input:   cur, prev [b,3,h,w] float32 in [0,1], h and w multiples of 16.
    Returns  flow       [b,2,h,w] float32 pixels, current to previous: prev(p + flow(p)) is what cur shows at p
             flow_back  [b,2,h,w] float32 pixels, previous to current
    """

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = WIDTHS
        self.to_half = Bent(3, half, stride=2)
        self.to_quarter = nn.ModuleList([Bent(half, quarter, stride=2), Bent(quarter, quarter)])
        self.to_eighth = nn.ModuleList([Bent(quarter, eighth, stride=2), Bent(eighth, eighth)])
        self.to_sixteenth = nn.ModuleList([Bent(eighth, sixteenth, stride=2), Bent(sixteenth, sixteenth)])
        channels = {4: quarter, 8: eighth, 16: sixteenth}
        self.compared = nn.ModuleDict({str(k): nn.Conv2d(channels[k], n, 1) for k, n in COMPARED.items()})
        far, near = 2 * (2 * FAR + 1) ** 2, (2 * NEAR + 1) ** 2
        self.at_sixteenth = Estimator(far + 2 + TOLD[16] + sixteenth, (96, 96, TOLD[16]))
        self.at_eighth = Estimator(near + 2 + TOLD[8] + eighth, (80, 64))
        self.at_quarter = Estimator(near + 2 + TOLD[4] + quarter, (40, 32))
        self.tell_eighth = nn.Conv2d(TOLD[16], TOLD[8], 1)
        self.tell_quarter = nn.Conv2d(64, TOLD[4], 1)

    def forward(self, cur: Tensor, prev: Tensor) -> tuple[Tensor, Tensor]:
        """(flow, flow_back). The two directions are rows of one batch."""
        here = self.see(torch.cat((cur, prev)))
        there = {cell: (features, torch.cat(keys.chunk(2)[::-1])) for cell, (features, keys) in here.items()}
        flow, flow_back = enlarge(4 * self.estimate(here, there)[-1], 4).chunk(2)
        return flow, flow_back

    def see(self, rgb: Tensor) -> Seen:
        """Features by side of a cell, and features for correlation, of length 2. rgb: [n,3,h,w] in [0,1]."""
        x = self.to_half((rgb - 0.5) * 4)
        seen = {}
        for cell, (halve, stay) in ((4, self.to_quarter), (8, self.to_eighth), (16, self.to_sixteenth)):
            x = halve(x)
            x = x + stay(x)
            seen[cell] = (x, 2 * normalize(self.compared[str(cell)](x), dim=1))
        return seen

    def estimate(self, here: Seen, there: Seen) -> list[Tensor]:
        """Successive estimates of the flow in cells: ROUNDS of [n,2,h/16,w/16], then [n,2,h/8,w/8], [n,2,h/4,w/4]."""
        found, told = self._search(here[16], there[16][1])
        finer = ((8, self.tell_eighth, self.at_eighth), (4, self.tell_quarter, self.at_quarter))
        for cell, tell, estimator in finer:
            features, keys = here[cell]
            flow, told = 2 * enlarge(found[-1], 2), enlarge(tell(told), 2)
            alike = _around(keys, pull(there[cell][1], flow))
            step, told = estimator(torch.cat((alike, flow, told, features), 1))
            found.append(flow + step)
        return found

    def _search(self, here: tuple[Tensor, Tensor], keys_there: Tensor) -> tuple[list[Tensor], Tensor]:
        """ROUNDS estimates of the flow from correlations of all pairs of cells, and features to pass on."""
        features, keys = here
        n, _, h, w = keys.shape
        alike = (keys.flatten(2).transpose(1, 2) @ keys_there.flatten(2)).reshape(n, h * w, h, w)
        alike_coarse = avg_pool2d(alike, 2, ceil_mode=True, count_include_pad=False)
        cells = _cells(keys)
        flow, told = torch.zeros_like(keys[:, :2]), torch.zeros_like(keys[:, : TOLD[16]])
        found = []
        for _ in range(ROUNDS):
            at = cells + flow
            looked = _look_up(alike, at), _look_up(alike_coarse, (at - 0.5) / 2)
            step, told = self.at_sixteenth(torch.cat((*looked, flow, told, features), 1))
            flow = flow + step
            found.append(flow)
        return found, told


class Estimator(nn.Module):
    """Correlations, flow, passed-on features and the picture's features, [n,c,h,w] -> a step of the flow."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        steps = [channels, *widths]
        self.layers = nn.ModuleList([Bent(a, b) for a, b in pairwise(steps)])
        self.leave = nn.Conv2d(widths[-1], 2, 3, padding=1)
        with torch.no_grad():
            self.leave.weight.mul_(0.1)
            assert self.leave.bias is not None
            self.leave.bias.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(step [n,2,h,w] in cells, last features [n,widths[-1],h,w])."""
        for layer in self.layers:
            x = layer(x)
        return self.leave(x), x


class Bent(nn.Conv2d):
    """A convolution of 3x3 and a leaky ReLU."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__(channels, width, 3, stride=stride, padding=1)
        nn.init.kaiming_normal_(self.weight, a=0.1)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[n,channels,h,w] -> [n,width,h/stride,w/stride]."""
        return leaky_relu(super().forward(x), 0.1)


def enlarge(x: Tensor, times: int) -> Tensor:
    """x enlarged bilinearly by a factor, with the corners of pictures aligned."""
    return interpolate(x, scale_factor=times, mode="bilinear", align_corners=False)


def pull(x: Tensor, flow: Tensor) -> Tensor:
    """x [n,c,h,w] sampled at p + flow(p), flow [n,2,h,w] in cells of x; positions outside are clamped to the border."""
    across, down = (2 * (_cells(x) + flow) + 1).unbind(1)
    at = torch.stack((across / x.shape[3] - 1, down / x.shape[2] - 1), 3)  # division keeps sizes dynamic in a trace
    return grid_sample(x, at, padding_mode="border", align_corners=False)


def _cells(x: Tensor) -> Tensor:
    """[1,2,h,w]: (x, y) of every cell."""
    h, w = x.shape[-2:]
    down, across = torch.meshgrid(torch.arange(h, device=x.device), torch.arange(w, device=x.device), indexing="ij")
    return torch.stack((across, down))[None].float()


def _look_up(alike: Tensor, position: Tensor) -> Tensor:
    """[n,cells,h',w'] read around position [n,2,h,w] -> [n,(2 FAR + 1)^2,h,w], with the offset in y as slower index."""
    n, _, h, w = position.shape
    return windows(alike, position, FAR).flatten(2).transpose(1, 2).reshape(n, -1, h, w)


def _around(here: Tensor, there: Tensor) -> Tensor:
    """[n,(2 NEAR + 1)^2,h,w]: dot products of each cell with the cells around it in `there`; 0 outside the border."""
    h, w = here.shape[-2:]
    there = pad(there, [NEAR] * 4)
    span = range(2 * NEAR + 1)
    return torch.cat([(here * there[:, :, y : y + h, x : x + w]).sum(1, keepdim=True) for y in span for x in span], 1)
