"""Motion of a whole clip: flow and trust frame by frame, to see, to warp along, and at the size of latents."""

from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from warpfuse.comfy.pictures import Each, checked, to_image
from warpfuse.engine.errors import BadInput
from warpfuse.stages.cpu import warp_picture
from warpfuse.stages.frame import Picture, Stamp
from warpfuse.stages.motion.dis_flow import SMALLEST_PX, Flow
from warpfuse.stages.motion.settings import FlowSettings, Preset
from warpfuse.web.motion import flow_over


class ClipMotion(TypedDict):
    """Motion of a clip, on the host.

    flow   [B, 2, H, W] px, current to previous, x before y
    trust  [B, 1, H, W] in [0, 1]; 0 all over at the first frame and at the first of another shot
    """

    flow: Tensor
    trust: Tensor


def flow_of(images: Tensor, preset: Preset, long_side: int | None, each: Each) -> ClipMotion:
    """Flow and trust of every frame of an IMAGE [B, H, W, 3]. Raises BadInput."""
    images = checked(images)
    if min(images.shape[1:3]) < SMALLEST_PX:
        raise BadInput(f"flow needs frames of {SMALLEST_PX} pixels or more each way, got {_size(images)}")
    if long_side is not None and long_side < 64:
        raise BadInput(f"long_side: expected 0 or 64 pixels or more, got {long_side}")
    stage = Flow(FlowSettings(preset=preset, long_side=long_side))
    frames = []
    for i, image in enumerate(images):
        frames.append(stage(Picture(Stamp(i, 0), planes(image))))
        each(i + 1, None)
    return ClipMotion(
        flow=torch.cat([frame.flow for frame in frames]), trust=torch.cat([frame.trust for frame in frames])
    )


def colours(motion: ClipMotion) -> Tensor:
    """The flow as an IMAGE: hue is the direction things move in, white stands still."""
    white = np.full((*motion["flow"].shape[-2:], 3), 255, np.uint8)
    return torch.stack([to_image(flow_over(white, flow.permute(1, 2, 0).numpy())) for flow in motion["flow"]])


def warped(images: Tensor, motion: ClipMotion, each: Each) -> Tensor:
    """Picture i - 1 onto frame i; the first as it is. Raises BadInput where the numbers or sizes differ."""
    images = checked(images)
    need_frames(motion, images)
    out = [images[0]]
    for i in range(1, len(images)):
        pulled = warp_picture(planes(images[i - 1]), motion["flow"][i : i + 1])
        out.append(pulled[0].permute(1, 2, 0))
        each(i + 1, None)
    return torch.stack(out)


def planes(image: Tensor) -> Tensor:
    """[H, W, 3] -> [1, 3, H, W] float32 on the host, in [0, 1]: the layout of the stages."""
    return image.detach().to("cpu", torch.float32).clamp(0, 1).permute(2, 0, 1)[None].contiguous()


def need_frames(motion: ClipMotion, images: Tensor) -> None:
    """Raise BadInput unless the motion has a field for every picture, of its size."""
    flow = motion["flow"]
    if len(flow) != len(images) or tuple(flow.shape[-2:]) != tuple(images.shape[1:3]):
        raise BadInput(
            f"the motion is of {len(flow)} frames of {flow.shape[-1]}x{flow.shape[-2]}, the pictures are "
            f"{len(images)} of {_size(images)}: take both from the same clip, before it is scaled"
        )


def _size(images: Tensor) -> str:
    return f"{images.shape[2]}x{images.shape[1]}"
