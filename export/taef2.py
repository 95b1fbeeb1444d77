"""The tiny autoencoder of FLUX.2's latents: 32 channels at an eighth of the size (weights: madebyollin/taesd, MIT).

It has TAESD's two stacks of convolutions. The three blocks at latent size have another branch, whose group norm is over
the whole picture. Numbers of the layers are the keys of the published weights. No run opens such a bundle yet. It is
for the command `warpfuse export taef2`, and lets every exporter be tested on an autoencoder alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from warpfuse.engine.bundle import PLANS, AutoencoderBundle
from warpfuse.engine.bundle_writing import check_place, write_autoencoder_bundle

from .disk import check_room, told_when_full
from .network_files import conclude, write_plain
from .onnx_writing import ExportError, load_weights
from .targets import ONNX_ALONE, Targets

LATENT_CHANNELS, DOWNSCALE = 32, 8
CHANNELS = 64
TOLERANCE = 1e-3  # for pictures in [0,1] and latents of a deviation of about 1; measured: about 1e-5


class TaefBlock(nn.Module):
    """[n,64,h,w] -> [n,64,h,w]: residual block of three convolutions. wide: with the branch over the whole picture."""

    def __init__(self, wide: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        self.pool = (
            nn.Sequential(
                nn.Conv2d(CHANNELS, 4 * CHANNELS, 1, bias=False),
                nn.GroupNorm(4, 4 * CHANNELS),
                nn.ReLU(),
                nn.Conv2d(4 * CHANNELS, CHANNELS, 1, bias=False),
            )
            if wide
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        if self.pool is not None:
            x = x + self.pool(x)
        out: Tensor = self.conv(x) + x
        return out.relu()


class Bounded(nn.Module):
    """Soft limit of a latent to (-3, 3)."""

    def forward(self, latent: Tensor) -> Tensor:
        """Same shape in and out."""
        return torch.tanh(latent / 3) * 3


class TaefEncoder(nn.Sequential):
    """rgb [n,3,8h,8w] in [0,1] -> latent [n,32,h,w]."""

    def __init__(self) -> None:
        halved = [layer for i in range(3) for layer in (_conv(stride=2), *_blocks(wide=i == 2))]
        super().__init__(nn.Conv2d(3, CHANNELS, 3, padding=1), TaefBlock(), *halved, _last(LATENT_CHANNELS))


class TaefDecoder(nn.Sequential):
    """latent [n,32,h,w] -> rgb [n,3,8h,8w] in [0,1]."""

    def __init__(self) -> None:
        doubled = [layer for i in range(3) for layer in (*_blocks(wide=i == 0), nn.Upsample(scale_factor=2), _conv(1))]
        first = nn.Conv2d(LATENT_CHANNELS, CHANNELS, 3, padding=1)
        super().__init__(Bounded(), first, nn.ReLU(), *doubled, TaefBlock(), _last(3))

    def forward(self, latent: Tensor) -> Tensor:
        """Latent to picture."""
        rgb: Tensor = super().forward(latent)  # type: ignore[no-untyped-call]
        return rgb.clamp(0, 1)


def load_encoder(weights: Path) -> TaefEncoder:
    """The encoder with its published weights, on the CPU. Only tensors are unpickled. Raises ExportError."""
    return load_weights(TaefEncoder(), weights)


def load_decoder(weights: Path) -> TaefDecoder:
    """The decoder with its published weights, on the CPU. Only tensors are unpickled. Raises ExportError."""
    return load_weights(TaefDecoder(), weights)


def export_taef2(
    folder: Path, encoder: TaefEncoder, decoder: TaefDecoder, size: tuple[int, int], targets: Targets = ONNX_ALONE,
    check: bool = False, say: Callable[[str], None] = lambda line: None,
) -> AutoencoderBundle:  # fmt: skip
    """Write both networks for pictures of size (width, height) as a bundle of kind "autoencoder". Errors leave nothing
    behind.

    targets  what is written beside the ONNX files;  check: print the table of errors

    Raises ExportError: the size is no multiple of 8, or a file does not compute what torch does.
    """
    width, height = size
    if min(size) < DOWNSCALE or width % DOWNSCALE or height % DOWNSCALE:
        raise ExportError(f"size {width}x{height}: the autoencoder takes multiples of {DOWNSCALE}, as in 512x288")
    rgb = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latent = encoder(rgb)
    check_place(folder)
    check_room(folder, {"both": (sum(p.numel() for half in (encoder, decoder) for p in half.parameters()), 4)}, targets)
    with told_when_full(folder), tempfile.TemporaryDirectory() as temporary:
        parts = (("encoder", encoder, {"rgb": rgb}, ["latent"]), ("decoder", decoder, {"latent": latent}, ["rgb"]))
        written = [
            write_plain(
                Path(temporary) / f"{kind}.onnx", network, inputs, outputs, targets, tolerance=TOLERANCE, half=True,
                measured=check,
            )
            for kind, network, inputs, outputs in parts
        ]  # fmt: skip
        plans = conclude(Path(temporary) / PLANS, written, targets, say, check)
        return write_autoencoder_bundle(
            folder,
            {name: path for one in written for name, path in one.files.items()},
            plans=plans,
            name=f"taef2-{width}x{height}",
            size=size,
            channels=LATENT_CHANNELS,
            downscale=DOWNSCALE,
            networks={"encoder": "encoder.onnx", "decoder": "decoder.onnx"},
            licence="MIT",
            source="madebyollin/taesd, taef2: the tiny autoencoder of FLUX.2's latents",
        )


def _conv(stride: int | None = None) -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, stride=stride or 1, padding=1, bias=stride is None)


def _blocks(wide: bool) -> list[TaefBlock]:
    return [TaefBlock(wide) for _ in range(3)]


def _last(channels: int) -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, channels, 3, padding=1)
