"""The convolutional parts of RAFT-small: bottleneck encoder, motion encoder, gated recurrent unit, flow head.

Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow" (2020), section 3 and the small model of
its supplement. Attribute names are the keys of the published weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

HIDDEN, CONTEXT = 96, 64
LEVELS, RADIUS = 4, 3
WINDOW = 2 * RADIUS + 1
_MOTION = 80


class Bottleneck(nn.Module):
    """[b,c,h,w] -> [b,width,h/stride,w/stride]: three convolutions and a shortcut, a ReLU after each and the sum."""

    def __init__(self, channels: int, width: int, stride: int, normed: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width // 4, 1)
        self.conv2 = nn.Conv2d(width // 4, width // 4, 3, stride=stride, padding=1)
        self.conv3 = nn.Conv2d(width // 4, width, 1)
        self.norm1, self.norm2, self.norm3 = _norm(width // 4, normed), _norm(width // 4, normed), _norm(width, normed)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, width, 1, stride=stride), _norm(width, normed)) if stride != 1 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """The output of the block."""
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        y = self.norm3(self.conv3(y)).relu()
        around: Tensor = x if self.downsample is None else self.downsample(x)
        out: Tensor = (around + y).relu()
        return out


class FeatureEncoder(nn.Module):
    """rgb [b,3,8h,8w] in [-1,1] -> [b,channels,h,w].  normed: instance norm after every convolution but the last."""

    def __init__(self, channels: int, normed: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, stride=2, padding=3)
        self.norm1 = _norm(32, normed)
        self.layer1 = nn.Sequential(Bottleneck(32, 32, 1, normed), Bottleneck(32, 32, 1, normed))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, 2, normed), Bottleneck(64, 64, 1, normed))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, 2, normed), Bottleneck(96, 96, 1, normed))
        self.conv2 = nn.Conv2d(96, channels, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Picture to features."""
        x = self.norm1(self.conv1(rgb)).relu()
        features: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return features


class MotionEncoder(nn.Module):
    """Correlations [b,196,h,w] and the flow at which they were read, [b,2,h,w] -> motion features [b,82,h,w]. The last
    two channels are the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * WINDOW**2, 96, 1)
        self.convf1 = nn.Conv2d(2, 64, 7, padding=3)
        self.convf2 = nn.Conv2d(64, 32, 3, padding=1)
        self.conv = nn.Conv2d(96 + 32, _MOTION, 3, padding=1)

    def forward(self, correlation: Tensor, flow: Tensor) -> Tensor:
        """The motion features."""
        c = self.convc1(correlation).relu()
        f = self.convf2(self.convf1(flow).relu()).relu()
        motion = self.conv(torch.cat((c, f), dim=1)).relu()
        return torch.cat((motion, flow), dim=1)


class ConvGru(nn.Module):
    """The gated recurrent unit with 3x3 convolutions, eqs. 3 to 6 of the paper.

    A convolution is linear in its input, so the contribution of the context to the three gates is the same in every
    iteration. It is computed once, which saves a fifth of an iteration's work.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = HIDDEN + CONTEXT + _MOTION + 2
        self.convz = nn.Conv2d(channels, HIDDEN, 3, padding=1)
        self.convr = nn.Conv2d(channels, HIDDEN, 3, padding=1)
        self.convq = nn.Conv2d(channels, HIDDEN, 3, padding=1)

    def of_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Context [b,64,h,w] -> its contribution, with biases, to z and r [b,192,h,w] and to q [b,96,h,w]."""
        gates = [
            (conv.weight[:, HIDDEN : HIDDEN + CONTEXT], conv.bias) for conv in (self.convz, self.convr, self.convq)
        ]
        (z, z_bias), (r, r_bias), (q, q_bias) = gates
        assert z_bias is not None and r_bias is not None
        zr = conv2d(context, torch.cat((z, r)), torch.cat((z_bias, r_bias)), padding=1)
        return zr, conv2d(context, q, q_bias, padding=1)

    def forward(self, h: Tensor, motion: Tensor, context_zr: Tensor, context_q: Tensor) -> Tensor:
        """The next hidden state, [b,96,h,w]."""
        zr = conv2d(torch.cat((h, motion), dim=1), torch.cat((_moving(self.convz), _moving(self.convr))), padding=1)
        z, r = (zr + context_zr).sigmoid().chunk(2, dim=1)
        q = conv2d(torch.cat((r * h, motion), dim=1), _moving(self.convq), padding=1)
        return torch.lerp(h, (q + context_q).tanh(), z)


class FlowHead(nn.Module):
    """Hidden state [b,96,h,w] -> step to be added to the flow, [b,2,h,w] cells."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 128, 3, padding=1)
        self.conv2 = nn.Conv2d(128, 2, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """The step."""
        step: Tensor = self.conv2(self.conv1(h).relu())
        return step


class Update(nn.Module):
    """One iteration: correlations and flow in, hidden state and a step of the flow out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = ConvGru()
        self.flow_head = FlowHead()

    def forward(
        self, h: Tensor, of_context: tuple[Tensor, Tensor], correlation: Tensor, flow: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(h, step), [b,96,h,w] and [b,2,h,w] cells."""
        h = self.gru(h, self.encoder(correlation, flow), *of_context)
        return h, self.flow_head(h)


def _norm(channels: int, normed: bool) -> nn.Module:
    return nn.InstanceNorm2d(channels) if normed else nn.Identity()


def _moving(conv: nn.Conv2d) -> Tensor:
    """The weights of a gate for all inputs but the context."""
    return torch.cat((conv.weight[:, :HIDDEN], conv.weight[:, HIDDEN + CONTEXT :]), dim=1)
