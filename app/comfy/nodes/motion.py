"""Nodes for motion: optical flow with its trust, and warping along it."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from warpfuse.comfy.nodes.sockets import CATEGORY, MOTION, images, motion, progress


class WarpfuseFlow(io.ComfyNode):
    """Optical flow to the frame before, and its trust."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The inputs are settings of `stages.flow`."""
        return io.Schema(
            node_id="WarpfuseFlow",
            display_name="Warpfuse Flow",
            category=CATEGORY,
            description="Optical flow from each frame to the one before it (DIS), as motion for the other nodes, as "
            "colours (hue: direction, white: still) and as a mask of where it is trusted. At a cut it is not.",
            inputs=[
                images("Frames of a video in their order, 12 pixels or more each way."),
                io.Combo.Input(
                    "preset",
                    options=["ultrafast", "fast", "balanced", "medium"],
                    default="balanced",
                    tooltip="Preset of OpenCV's DIS flow, from the fastest to the most precise.",
                ),
                io.Int.Input(
                    "long_side",
                    default=384,
                    min=0,
                    max=4096,
                    tooltip="Longer side in pixels at which the flow of larger frames is computed, 64 or more; "
                    "0: at the frames' own size.",
                ),
            ],
            outputs=[
                MOTION.Output(display_name="motion"),
                io.Image.Output(display_name="colours"),
                io.Mask.Output(display_name="trust"),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, preset: Any, long_side: int) -> io.NodeOutput:
        """Compute the flow of every frame. Raises BadInput for frames that are too small."""
        from warpfuse.comfy.motion import colours, flow_of

        found = flow_of(images, preset, long_side or None, progress(len(images)))
        return io.NodeOutput(found, colours(found), found["trust"][:, 0])


class WarpfuseWarp(io.ComfyNode):
    """Every picture warped onto the next frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Pictures, and motion of the same frames."""
        return io.Schema(
            node_id="WarpfuseWarp",
            display_name="Warpfuse Warp",
            category=CATEGORY,
            description="Warps each picture onto the frame after it, along the flow: picture i - 1 with its "
            "objects where they are in frame i. The first stays as it is.",
            inputs=[images("As many pictures as the motion has frames, of the same size."), motion()],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images: Tensor, motion: Any) -> io.NodeOutput:
        """Warp the batch. Raises BadInput if numbers or sizes differ."""
        from warpfuse.comfy.motion import warped

        return io.NodeOutput(warped(images, motion, progress(len(images), preview=False)))
