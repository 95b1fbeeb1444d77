"""Motion of a clip at the size of its latents, and fusion of its frames one after the other:

    x0'_i = x0_i + w_i (warp(x0'_{i - 1}) - x0_i),      w_i = weight trust_i,      x0'_0 = x0_0

A batch of frames is denoised together, so in every step frame i is fused with frame i - 1 of the same step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from warpfuse.comfy.motion import ClipMotion
from warpfuse.engine.errors import BadInput
from warpfuse.stages import cpu
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.formulas.confidence_mask import inside
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.motion.warp import latent_trust

Reference = Literal["previous", "first"]
"""The frame with which a frame is fused: the frame before it, or the first one, along the composed flow."""

Picture = Callable[[Tensor], Tensor]
"""A decoder, [1, c, h, w] in the model's scale -> [1, 3, H, W] in [0, 1]; or an encoder, the reverse."""

Pull = Callable[[Tensor, int], Tensor]
"""(fused x0 of another frame, i) -> x0 warped onto frame i; [1, c, h, w] both."""

_DOWNSCALE = 8  # of most autoencoders; pixels of incomplete cells are cropped


@dataclass(frozen=True, slots=True)
class LatentMotion:
    """Motion from each frame to the frame with which it is fused.

    flow      [B, 2, h, w], latent cells
    trust     [B, 1, h, w] in [0, 1]; 0 for frame 0
    flow_px   [B, 2, H, W], pixels, for references that are warped as pictures
    """

    flow: Tensor
    trust: Tensor
    flow_px: Tensor

    def to(self, device: torch.device) -> "LatentMotion":
        """The motion on a device."""
        return LatentMotion(self.flow.to(device), self.trust.to(device), self.flow_px.to(device))


def at_latents(motion: ClipMotion, frames: int, size: tuple[int, int], reference: Reference) -> LatentMotion:
    """Motion of a clip at the (h, w) of its latents.

    If pictures have incomplete cells, ComfyUI's encoder crops them centrally, and so is the motion here. Motion of
    another scale is resized. Raises BadInput if the numbers of frames differ.
    """
    flow, trust = motion["flow"], motion["trust"]
    if len(flow) != frames:
        raise BadInput(
            f"the motion is of {len(flow)} frames, the latents are {frames}: encode the same frames, in one batch"
        )
    flow, trust, downscale = _in_cells(flow, trust, size)
    if reference == "first":
        flow, trust = _to_first(flow, trust)
    trust = latent_trust(cpu, trust, downscale, WarpSettings())
    return LatentMotion(cpu.resize_flow(flow, size), trust, flow)


def pull_latents(motion: LatentMotion) -> Pull:
    """Warps references as latents."""
    ops = arithmetic(motion.flow.device)
    return lambda x0, i: ops.warp(x0, motion.flow[i : i + 1])


def pull_pictures(motion: LatentMotion, decode: Picture, encode: Picture) -> Pull:
    """Warps references as decoded pictures: sharper, at a decoder and an encoder run for every frame."""

    def pull(x0: Tensor, i: int) -> Tensor:
        rgb = decode(x0)
        ops, flow = arithmetic(rgb.device), motion.flow_px[i : i + 1].to(rgb.device)
        pulled = ops.warp_picture(rgb, ops.resize_flow(flow, (rgb.shape[-2], rgb.shape[-1])))
        return encode(pulled).to(x0)

    return pull


def chained(
    x0: Tensor,
    fuse: Callable[[int, Tensor | None], Tensor],
    pull: Pull,
    reference: Reference,
) -> list[Tensor]:
    """The fused x0 of every frame, [1, c, h, w] each, in their order.

    x0    [B, c, h, w], predicted by the network
    fuse  (i, reference warped onto frame i; None for frame 0) -> fused x0 of frame i
    """
    done: list[Tensor] = []
    for i in range(len(x0)):
        past = None if i == 0 else done[0 if reference == "first" else i - 1]
        done.append(fuse(i, None if past is None else pull(past, i)))
    return done


def _in_cells(flow: Tensor, trust: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
    """Flow and trust cropped to complete cells, and the side of a cell in pixels."""
    height, width = flow.shape[-2:]
    for downscale in (_DOWNSCALE, height // size[0]):
        over = height - downscale * size[0], width - downscale * size[1]
        if all(0 <= rest < downscale for rest in over):
            top, left = over[0] // 2, over[1] // 2
            rows, columns = slice(top, top + downscale * size[0]), slice(left, left + downscale * size[1])
            return flow[..., rows, columns], trust[..., rows, columns], downscale
    fitted = _DOWNSCALE * size[0], _DOWNSCALE * size[1]
    trust = interpolate(trust, fitted, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
    return cpu.resize_flow(flow, fitted), trust, _DOWNSCALE


def _to_first(flow: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
    """Motion to frame 0: F_i(p) = f_i(p) + F_{i-1}(p + f_i(p)), with the product of trust along the path."""
    flows: list[Tensor] = [flow[:1]]
    trusts: list[Tensor] = [torch.ones_like(trust[:1])]
    for f, m in zip(_single(flow[1:]), _single(trust[1:]), strict=True):
        flows.append(f + cpu.warp(flows[-1], f, "bilinear"))
        trusts.append(m * cpu.warp(trusts[-1], f, "bilinear") * inside(flows[-1]))
    return torch.cat(flows), torch.cat([trust[:1], *trusts[1:]])


def _single(batch: Tensor) -> Sequence[Tensor]:
    return [one[None] for one in batch]
