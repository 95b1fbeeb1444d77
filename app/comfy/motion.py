"""Motion of a clip: flow and trust of each frame, their display, and warping along them."""

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

    flow   [B, 2, H, W] px, (x, y), current to previous
    trust  [B, 1, H, W] in [0, 1]; 0 everywhere in the first frame of a shot
    """

    flow: Tensor
    trust: Tensor


def flow_of(images: Tensor, preset: Preset, long_side: int | None, each: Each) -> ClipMotion:
    """Flow and trust of every frame of an IMAGE [B, H, W, 3]. each: called after each frame. Raises BadInput."""
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
    """The flow as an IMAGE: hue is the direction of motion, white no motion."""
    white = np.full((*motion["flow"].shape[-2:], 3), 255, np.uint8)
    return torch.stack([to_image(flow_over(white, flow.permute(1, 2, 0).numpy())) for flow in motion["flow"]])


def warped(images: Tensor, motion: ClipMotion, each: Each) -> Tensor:
    """Picture i - 1 warped onto frame i; the first is unchanged. Raises BadInput if numbers or sizes differ."""
    images = checked(images)
    need_frames(motion, images)
    out = [images[0]]
    for i in range(1, len(images)):
        pulled = warp_picture(planes(images[i - 1]), motion["flow"][i : i + 1])
        out.append(pulled[0].permute(1, 2, 0))
        each(i + 1, None)
    return torch.stack(out)


def planes(image: Tensor) -> Tensor:
    """[H, W, 3] -> [1, 3, H, W] float32 in [0, 1], on the host, as stages take it."""
    return image.detach().to("cpu", torch.float32).clamp(0, 1).permute(2, 0, 1)[None].contiguous()


def need_frames(motion: ClipMotion, images: Tensor) -> None:
    """Raise BadInput unless the motion has the number and size of the pictures."""
    flow = motion["flow"]
    if len(flow) != len(images) or tuple(flow.shape[-2:]) != tuple(images.shape[1:3]):
        raise BadInput(
            f"the motion is of {len(flow)} frames of {flow.shape[-1]}x{flow.shape[-2]}, the pictures are "
            f"{len(images)} of {_size(images)}: take both from the same clip, before it is scaled"
        )


def _size(images: Tensor) -> str:
    return f"{images.shape[2]}x{images.shape[1]}"
