"""The edge network: soft edges as HED finds them, for ControlNets of HED, at a few milliseconds of a CPU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, relu

MULTIPLE = 16  # sides of a picture are multiples of it
WIDTHS = 16, 32, 48, 64  # channels at a half, a quarter, an eighth and a sixteenth of the size
FAR = 3  # blocks at a sixteenth: what is an outline and what is texture is told from afar


class TinyEdgeNetwork(nn.Module):
    """rgb [n,3,h,w] in [0,1], sides multiples of MULTIPLE -> edges [n,1,h,w] in [0,1].

    Down to a sixteenth of the size and back to a quarter, whose channels are the pixels of its cells.
    """

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = WIDTHS
        self.to_half = nn.Conv2d(3, half, 3, 2, 1)
        self.to_quarter = nn.Conv2d(half, quarter, 3, 2, 1)
        self.to_eighth = nn.Conv2d(quarter, eighth, 3, 2, 1)
        self.at_eighth = SeparableBlock(eighth, 3)
        self.to_sixteenth = nn.Sequential(
            nn.Conv2d(eighth, eighth, 3, 2, 1, groups=eighth), nn.Conv2d(eighth, sixteenth, 1)
        )
        self.at_sixteenth = nn.Sequential(*(SeparableBlock(sixteenth, 5) for _ in range(FAR)))
        self.from_sixteenth = nn.Conv2d(sixteenth, eighth, 1)
        self.from_eighth = nn.Conv2d(eighth, quarter, 1)
        self.at_quarter = nn.Conv2d(quarter, quarter, 3, 1, 1)
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv2d):
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        self.leave = nn.Conv2d(quarter, 16, 3, 1, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Edges."""
        return self.logits(rgb).sigmoid()

    def logits(self, rgb: Tensor) -> Tensor:
        """[n,1,h,w], the edges before the sigmoid."""
        quarter = relu(self.to_quarter(relu(self.to_half((rgb - 0.5) * 4))))
        eighth = self.at_eighth(relu(self.to_eighth(quarter)))
        sixteenth = self.at_sixteenth(relu(self.to_sixteenth(eighth)))
        eighth = relu(eighth + _enlarged(self.from_sixteenth(sixteenth)))
        quarter = relu(quarter + _enlarged(self.from_eighth(eighth)))
        return pixel_shuffle(self.leave(relu(self.at_quarter(quarter))), 4)


class SeparableBlock(nn.Module):
    """x [n,c,h,w] -> the same shape: a convolution of each channel, one across them, and x again."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.each = nn.Conv2d(channels, channels, side, 1, side // 2, groups=channels)
        self.across = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        out: Tensor = x + relu(self.across(self.each(x)))
        return out


def _enlarged(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
