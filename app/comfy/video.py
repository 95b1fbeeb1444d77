"""Restyling a video one frame at a time with a network of ComfyUI in place of a bundle's UNet.

    z      = encode(frame i)
    z_ref  = encode(warp(shown i - 1))                                           along the flow
    z'     = lerp(z, lock(z_ref, z), entry weight trust)                         the start of sampling
    x0     = sample(z')                                                          with the same noise for every frame
    shown  = decode(lerp(x0, z_ref, exit weight trust)), its contrast locked     the output, warped for the next frame

A frame without a past (the first frame, or no trust anywhere, as at a cut) is sampled as if it were alone, bit for bit.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from warpfuse.comfy.motion import ClipMotion, need_frames, planes
from warpfuse.comfy.pictures import Each, checked, to_bytes
from warpfuse.engine.errors import BadInput
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.diffusion.moment_lock import MomentLock
from warpfuse.stages.diffusion.settings import W_MAX, MomentLockSettings
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.motion.warp import latent_trust
from warpfuse.stages.solvers.levels import CLEAN
from warpfuse.stages.solvers.pair import fuse


class VideoNetworks(Protocol):
    """Networks for encoding, sampling and decoding a frame.

    cells  widths and heights have to be multiples of this, px
    """

    cells: int

    def encode(self, rgb: Tensor) -> Tensor:
        """[1, 3, H, W] in [0, 1] -> [1, c, h, w]."""

    def decode(self, latent: Tensor) -> Tensor:
        """[1, c, h, w] -> [1, 3, H, W] in [0, 1]."""

    def sample(self, latent: Tensor, frame: int, cut: bool) -> Tensor:
        """Add noise to a latent and denoise it. cut: the frame has no past."""


@dataclass(frozen=True, slots=True)
class VideoFusion:
    """Fusion weight at full trust, 0..1, and its shares at the start of sampling (entry) and at the end (exit)."""

    weight: float = 0.8
    entry: float = 1.0
    exit: float = 1.0


def restyle(
    images: Tensor, motion: ClipMotion, networks: VideoNetworks, fusion: VideoFusion, each: Each
) -> tuple[Tensor, Tensor]:
    """Restyle an IMAGE [B, H, W, 3]. Returns the styled IMAGE, and its latents [B, c, h, w].

    motion  motion of these frames
    each    is called after every frame. An exception from it ends the run

    Raises BadInput.
    """
    images = checked(images)
    need_frames(motion, images)
    height, width = images.shape[1:3]
    lock, weight = MomentLock(MomentLockSettings()), min(fusion.weight, W_MAX)
    out = torch.empty(images.shape[0], height, width, 3)
    latents: Tensor | None = None
    shown: Tensor | None = None
    for i, image in enumerate(images):
        rgb = _whole_cells(planes(image), networks.cells)
        flow = _whole_cells(motion["flow"][i : i + 1].to(torch.float32), networks.cells)
        trust = _whole_cells(motion["trust"][i : i + 1].to(torch.float32), networks.cells)
        cut = shown is None or not bool(trust.any())
        z = networks.encode(rgb)
        if z.ndim != 4:
            raise BadInput(f"expected an autoencoder of pictures, [1, c, h, w], got latents {list(z.shape)}")
        if cut or not weight or shown is None:
            lock.reset()
            x0 = networks.sample(z, i, cut)
        else:
            z_ref = networks.encode(arithmetic(shown.device).warp_picture(shown, flow))
            m = latent_trust(arithmetic(trust.device), trust, rgb.shape[-1] // z.shape[-1], WarpSettings())
            start = fuse(
                z, None, arithmetic(z.device).lock_to_source(z_ref, z), None, fusion.entry * weight * m, 0.0, CLEAN
            )
            x0 = networks.sample(start, i, cut)
            if fusion.exit:
                x0 = lock.fuse(x0, z_ref, m, m.new_tensor(fusion.exit * weight))
        shown = networks.decode(x0).clamp(0, 1)
        out[i] = shown[0, :, :height, :width].permute(1, 2, 0)
        if latents is None:
            latents = torch.empty(len(images), *x0.shape[1:])
        latents[i] = x0[0]
        each(i + 1, to_bytes(out[i]))
    assert latents is not None
    return out, latents


def hints(control_net: object, control_images: Tensor | None, images: Tensor, cells: int) -> list[Tensor] | None:
    """The control image of every frame, [1, 3, H, W], padded like the frame; None without a ControlNet.

    Raises BadInput if only one of ControlNet and images is given, or the number of images differs from the frames.
    """
    if control_net is None and control_images is None:
        return None
    if control_net is None or control_images is None:
        lacking = "control_net" if control_net is None else "control_images"
        raise BadInput(f"a ControlNet takes both control_net and control_images, and {lacking} is not connected")
    if len(control_images) != len(images):
        raise BadInput(f"control_images: expected one for each of the {len(images)} frames, got {len(control_images)}")
    shown = [planes(image) for image in checked(control_images)]
    alike = control_images.shape[1:3] == images.shape[1:3]
    return [_whole_cells(one, cells) for one in shown] if alike else shown


def _whole_cells(x: Tensor, cells: int) -> Tensor:
    """[1, c, H, W] padded to multiples of `cells` by repeating its right and lower edge."""
    right, below = -x.shape[-1] % cells, -x.shape[-2] % cells
    return pad(x, (0, right, 0, below), "replicate") if right or below else x
