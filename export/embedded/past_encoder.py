"""The encoder of the fed-back picture: one linear map, which takes a sixth of the encoder's time.

The fed-back picture was decoded, so it has nothing that the autoencoder loses. The convolutional network of
`TinyEncoder` is needed for pictures of a camera. For decoded pictures a linear map of 12x12 pixels gives nearly the
same latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .autoencoder import DOWNSCALE, LATENT_CHANNELS
from .batches import shifted
from .calibration import TrainedNetworks, as_input
from .photographs import Picture, jitter

WINDOW = 12  # pixels, around each block of DOWNSCALE
RIM = (WINDOW - DOWNSCALE) // 2
LONG_SIDES = (288, 448)  # pixels of the photographs
RIDGE = 1e-6  # as a share of the mean variance


class PastEncoder(nn.Module):
    """A decoded picture, rgb [n,3,8h,8w] in [0,1] -> latent [n,C,h,w], nearly that of `TinyEncoder`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(3, LATENT_CHANNELS, WINDOW, stride=DOWNSCALE, padding=RIM)

    def forward(self, rgb: Tensor) -> Tensor:
        """Picture to latent."""
        latent: Tensor = self.linear(rgb - 0.5)
        return latent


@torch.no_grad()
def past_encoder(networks: TrainedNetworks, photos: Sequence[Picture], seed: int) -> PastEncoder:
    """Fit the encoder by least squares, on photographs that were encoded, decoded and shifted by up to a pixel.

    networks  the encoder that it should equal, and the decoder
    """
    rng = np.random.default_rng([seed, 11])
    width = 3 * WINDOW**2 + 1
    gram = torch.zeros(width, width, dtype=torch.float64)
    moment = torch.zeros(width, LATENT_CHANNELS, dtype=torch.float64)
    for photo in photos:
        for long_side in LONG_SIDES:
            rgb = torch.from_numpy(networks.decode(networks.encode(as_input(jitter(photo, rng), long_side))))
            back = shifted(rgb, torch.from_numpy(rng.uniform(-1.0, 1.0, (1, 2)).astype(np.float32))).clamp(0.0, 1.0)
            wanted = torch.from_numpy(networks.encode(back.contiguous().numpy()))
            padded = nn.functional.pad(back - 0.5, (RIM, RIM, RIM, RIM))
            seen = nn.functional.unfold(padded, WINDOW, stride=DOWNSCALE)[0].T
            seen = torch.cat([seen, torch.ones(len(seen), 1)], 1).double()
            gram += seen.T @ seen
            moment += seen.T @ wanted[0].flatten(1).T.double()
    solved = torch.linalg.solve(gram + RIDGE * gram.diagonal().mean() * torch.eye(width, dtype=torch.float64), moment)
    fitted = PastEncoder()
    fitted.linear.weight.copy_(solved[:-1].T.reshape(fitted.linear.weight.shape))
    assert fitted.linear.bias is not None
    fitted.linear.bias.copy_(solved[-1])
    return fitted.requires_grad_(False)
