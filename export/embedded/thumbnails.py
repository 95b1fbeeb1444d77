"""Small pictures of every style, for choosing one."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import nn

from .autoencoder import TinyDecoder, TinyEncoder
from .levels import alphas_and_sigmas
from .line_block import LineBlock
from .photographs import Picture, to_tensor
from .styles import STYLES
from .train_student import START_TIMESTEP, Prints
from .unet import TinyUNet

SIZE = (288, 160)  # width and height, pixels
QUALITY = 82  # of the JPEG, percent


def thumbnails(
    encoder: TinyEncoder, unet: TinyUNet, decoder: TinyDecoder, lines: LineBlock, photo: Picture
) -> dict[str, bytes]:
    """JPEGs of SIZE by style: the middle of `photo`, restyled with one step."""
    rgb = to_tensor([_middle(photo)])
    prints, level = Prints.of_styles(), alphas_and_sigmas()[[START_TIMESTEP]]
    for network in (encoder, unet, decoder, lines):
        network.eval()
    found = {}
    with torch.no_grad():
        z = encoder(rgb)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
        for i, style in enumerate(STYLES):
            chosen = torch.tensor([i])
            vector = nn.functional.one_hot(chosen, len(STYLES)).float()
            latent = unet(level[0, 0] * z + level[0, 1] * noise, z, level, vector)
            picture = prints(decoder(latent).clamp(0.0, 1.0), lines(rgb, latent, vector), chosen)
            found[style.name] = _jpeg((255.0 * picture[0].permute(1, 2, 0).numpy() + 0.5).astype(np.uint8))
    return found


def _middle(photo: Picture) -> Picture:
    """The largest part with the aspect of SIZE, above the centre, where faces are, scaled to SIZE."""
    (w, h), (height, width) = SIZE, photo.shape[:2]
    k = min(height / h, width / w)
    y, x = int((height - k * h) / 3), int((width - k * w) / 2)
    part = photo[y : y + int(k * h), x : x + int(k * w)]
    return np.ascontiguousarray(cv2.resize(part, SIZE, interpolation=cv2.INTER_AREA))


def _jpeg(picture: Picture) -> bytes:
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()
