"""Nodes that patch a MODEL of ComfyUI, with any checkpoint and LoRAs, for a batch of frames."""

from typing import Any

from comfy_api.latest import io

from warpfuse.comfy.nodes.sockets import CATEGORY, motion, share

SAMPLER_SAMPLE = "sampler_sample"
"""Type of ComfyUI's wrappers of a sampler (`comfy.patcher_extension.WrappersMP`)."""


class WarpfuseFuseModel(io.ComfyNode):
    """Fuses the frames of a batch along the flow while any sampler denoises them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """MODEL, motion, weight, window, reference, and an optional VAE."""
        return io.Schema(
            node_id="WarpfuseFuseModel",
            display_name="Warpfuse Fuse Model",
            category=CATEGORY,
            description="Makes every frame of a batch continue the one before it: the clean latent that the model "
            "predicts is fused with the last frame's, warped along the flow; the noise remains the model's own. "
            "Exact with euler, ddim, euler_ancestral and lcm, approximate with samplers of higher order: use "
            "WarpfuseSampler there.",
            inputs=[
                io.Model.Input("model", tooltip="Any image model: SD, SDXL, Flux, ..., with its LoRAs."),
                motion(),
                share("weight", 0.8, "How much a frame takes from the one before it. 0: nothing."),
                share("start_percent", 0.0, "Part of the sampling after which fusion begins."),
                share("end_percent", 1.0, "Part of the sampling after which fusion ends."),
                io.Combo.Input(
                    "reference",
                    options=["previous", "first"],
                    default="previous",
                    tooltip="Fuse with the frame before, or with the first one, warped along the whole way: less "
                    "drift, but fewer pixels can be followed.",
                ),
                io.Combo.Input(
                    "kappa",
                    options=["auto", "1"],
                    default="auto",
                    tooltip="auto: by the sampler. 1: for samplers of other packs that add new noise "
                    "at every step, as lcm does.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Warp references as pictures: sharper, but a decoder and an encoder run for every frame "
                    "and step. Without it, latents are warped.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        motion: Any,
        weight: float,
        start_percent: float,
        end_percent: float,
        reference: Any,
        kappa: Any,
        vae: Any = None,
    ) -> io.NodeOutput:
        """A clone of the model with the hook. Sampling raises BadInput for another number of frames."""
        from warpfuse.comfy.model_fusion import FuseModel, tell_step
        from warpfuse.comfy.nodes.networks import in_model_scale, is_flow

        pictures = None if vae is None else lambda base: in_model_scale(vae, base)
        window = start_percent, end_percent
        model = model.clone()
        model.add_wrapper_with_key(SAMPLER_SAMPLE, "warpfuse", tell_step)
        model.set_model_sampler_post_cfg_function(
            FuseModel(motion, weight, window, reference, kappa, is_flow, pictures)
        )
        return io.NodeOutput(model)


class WarpfuseCrossFrame(io.ComfyNode):
    """Cross-frame attention among the frames of a batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """MODEL, blocks, and weights."""
        return io.Schema(
            node_id="WarpfuseCrossFrame",
            display_name="Warpfuse Cross Frame",
            category=CATEGORY,
            description="Lets every frame of a batch attend to the first frame and to the one before it, so that they "
            "look alike (as in Rerender-A-Video). For UNets: SD 1.5, SD 2, SDXL. The first frame is unchanged.",
            inputs=[
                io.Model.Input("model", tooltip="A model with a UNet."),
                io.Combo.Input(
                    "blocks",
                    options=["output", "all"],
                    default="output",
                    tooltip="The decoder of the UNet, or all of it: frames are more alike, at nearly twice the cost.",
                ),
                share("own", 1.0, "Weight of a frame's own tokens. 0: they are replaced, as in Rerender-A-Video."),
                share("anchor", 1.0, "Weight of the first frame's tokens."),
                share("previous", 1.0, "Weight of the tokens of the frame before."),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, model: Any, blocks: str, own: float, anchor: float, previous: float) -> io.NodeOutput:
        """A clone of the model with the patch. Raises BadInput if all three weights are 0."""
        from warpfuse.comfy.cross_frame import Weights, patched

        return io.NodeOutput(patched(model, Weights(own, anchor, previous), blocks))
