"""The autoencoder: pictures to whitened latents, 32 channels at an eighth of the size, and back.

Most of the computation is at an eighth and a quarter of the size, where convolutions are cheap. No layer uses
statistics of the whole picture, since they change from frame to frame and make video flicker.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LATENT_CHANNELS = 32
DOWNSCALE = 8


def bend() -> nn.Module:
    """The activation. It is leaky: plain ReLUs die, since training starts from a good linear map."""
    return nn.LeakyReLU(0.1)


class Residual(nn.Module):
    """[n,c,h,w] -> [n,c,h,w]: a residual block of two 3x3 convolutions, near the identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.bend = bend()
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, h: Tensor) -> Tensor:
        """Same shape in and out."""
        out: Tensor = h + self.second(self.bend(self.first(h)))
        return out


class Enlarge(nn.ConvTranspose2d):
    """[n,a,h,w] -> [n,b,2h,2w]: a transposed convolution, in which every pixel becomes four with their own weights.

    The weights of the four are equal at the start, since otherwise a checkerboard appears and stays. (The usual remedy,
    repeating pixels and convolving, reproduces details within a latent cell badly. Pixel shuffle is slower on a CPU.)
    """

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b, 2, stride=2)
        with torch.no_grad():
            self.weight.copy_(self.weight[:, :, :1, :1].expand_as(self.weight))


class TinyEncoder(nn.Module):
    """rgb [n,3,8h,8w] in [0,1] -> latent [n,C,h,w] of mean 0 and deviation 1 in every channel over photographs.

    The sum of a linear map of 8x8 blocks and a small network, whitened by `mean` and `std` [1,C,1,1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int = 64, blocks: int = 1) -> None:
        super().__init__()
        self.linear = nn.Conv2d(3, LATENT_CHANNELS, DOWNSCALE, stride=DOWNSCALE)
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 12, stride=DOWNSCALE, padding=2),
            bend(),
            *[Residual(width) for _ in range(blocks)],
            bend(),
            _silent(width, LATENT_CHANNELS),
        )
        self.register_buffer("mean", torch.zeros(1, LATENT_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(1, LATENT_CHANNELS, 1, 1))

    def forward(self, rgb: Tensor) -> Tensor:
        """Picture to latent."""
        centred = rgb - 0.5
        latent: Tensor = (self.linear(centred) + self.body(centred) - self.mean) / self.std
        return latent


class TinyDecoder(nn.Module):
    """latent [n,C,h,w] -> rgb [n,3,8h,8w]. With `clamp`, for export, in [0,1]; without it for training.

    The sum of the inverse of the encoder's linear map and a network. `mean` and `std` are those of the encoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, eighth: int = 64, quarter: int = 32, blocks: int = 1, clamp: bool = False) -> None:
        super().__init__()
        self.clamp = clamp
        self.linear = nn.ConvTranspose2d(LATENT_CHANNELS, 48, 2, stride=2)
        self.body = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, eighth, 3, padding=1),
            bend(),
            *[Residual(eighth) for _ in range(blocks)],
            Enlarge(eighth, quarter),
            Residual(quarter),
            bend(),
            _silent(quarter, 48),
        )
        self.register_buffer("mean", torch.zeros(1, LATENT_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(1, LATENT_CHANNELS, 1, 1))

    def forward(self, latent: Tensor) -> Tensor:
        """Latent to picture."""
        z = latent * self.std + self.mean
        rgb = nn.functional.pixel_shuffle(self.linear(z) + self.body(z), 4) + 0.5
        return rgb.clamp(0.0, 1.0) if self.clamp else rgb


def start_from_principal_components(encoder: TinyEncoder, decoder: TinyDecoder, rgb: Tensor) -> None:
    """Set the linear maps to the first principal components of the 8x8 blocks of rgb [n,3,h,w], which are optimal.

    Both networks then start with the round trip of block-wise PCA (28 dB and more). Changes both.
    """
    blocks = nn.functional.unfold(rgb.contiguous() - 0.5, DOWNSCALE, stride=DOWNSCALE).transpose(1, 2).flatten(0, 1)
    blocks = blocks.double()
    mean = blocks.mean(0)
    variance, vectors = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
    deviation, basis = variance[-LATENT_CHANNELS:].sqrt(), vectors[:, -LATENT_CHANNELS:]
    down = (basis / deviation).T.reshape(LATENT_CHANNELS, 3, DOWNSCALE, DOWNSCALE)
    # [c,y,x] of a block -> [c, y within 4, x within 4] channels and [y, x] of the 2x2 quarters
    up = (basis * deviation).T.reshape(LATENT_CHANNELS, 3, 2, 4, 2, 4).permute(0, 1, 3, 5, 2, 4)
    offset = mean.reshape(3, 2, 4, 2, 4).mean((1, 3))  # per sub-pixel; a bias is the same for all quarters
    with torch.no_grad():
        encoder.linear.weight.copy_(down)
        decoder.linear.weight.copy_(up.reshape(LATENT_CHANNELS, 48, 2, 2))
        for bias, value in (
            (encoder.linear.bias, -(basis / deviation).T @ mean),
            (decoder.linear.bias, offset.flatten()),
        ):
            assert bias is not None
            bias.copy_(value)


def whiten_exactly(encoder: TinyEncoder, decoder: TinyDecoder, batches: list[Tensor]) -> None:
    """Set the whitening of both networks from photographs, rgb [n,3,h,w] each. Changes both."""
    with torch.no_grad():
        z = torch.cat([encoder(rgb).transpose(0, 1).flatten(1) for rgb in batches], 1)
        mean, std = z.mean(1).view_as(encoder.mean), z.std(1).view_as(encoder.std)
        for network in (encoder, decoder):
            network.mean.add_(mean * network.std)
            network.std.mul_(std)


def _silent(a: int, b: int) -> nn.Conv2d:
    """A 3x3 convolution from a to b channels, 0 at the start."""
    conv = nn.Conv2d(a, b, 3, padding=1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv
