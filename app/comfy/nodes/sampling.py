"""Nodes that sample with a MODEL of ComfyUI: the solvers of warpfuse, and a video frame by frame."""

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from warpfuse.comfy.nodes.sockets import CATEGORY, images, motion, progress, share


class WarpfuseSampler(io.ComfyNode):
    """A solver of warpfuse with fusion, for SamplerCustom and SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Solver, noise policy, motion, weights and window."""
        return io.Schema(
            node_id="WarpfuseSampler",
            display_name="Warpfuse Sampler",
            category=CATEGORY,
            description="Samples a batch of frames and fuses each with the one before it between the steps and at the "
            "end, with the noise rescaled. Exact for every solver here. For SamplerCustom and SamplerCustomAdvanced.",
            inputs=[
                io.Combo.Input(
                    "solver",
                    options=["auto", "euler", "euler_ancestral", "heun", "ddim", "turbo", "rectified_flow"],
                    default="auto",
                    tooltip="auto: euler, and rectified_flow for flow models. turbo adds new noise at every step: "
                    "for LCM, turbo and lightning models.",
                ),
                io.Combo.Input(
                    "noise",
                    options=["model", "slot", "fresh"],
                    default="model",
                    tooltip="Noise added to a reference. model: the frame's own; slot: the step's, the same for "
                    "every frame; fresh: new noise, which hides seams but flickers more.",
                ),
                share("weight", 0.8, "Weight of the frame before, between steps."),
                share("exit", 0.8, "Weight of the frame before in the result."),
                share("start_percent", 0.0, "Part of the sampling after which fusion between steps begins."),
                share("end_percent", 1.0, "Part of the sampling after which fusion between steps ends."),
                io.Combo.Input(
                    "reference",
                    options=["previous", "first"],
                    default="previous",
                    tooltip="Fuse with the frame before, or with the first one, warped along the whole way.",
                ),
                motion(optional=True),
            ],
            outputs=[io.Sampler.Output(display_name="sampler")],
        )

    @classmethod
    def execute(cls, start_percent: float, end_percent: float, motion: Any = None, **settings: Any) -> io.NodeOutput:
        """A SAMPLER of ComfyUI. Without motion it only samples."""
        from comfy.samplers import KSAMPLER

        from warpfuse.comfy.nodes.networks import is_flow
        from warpfuse.comfy.sampler import SamplerSettings, solve

        def sample_warpfuse(
            model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
        ) -> Tensor:
            sampling = model.inner_model.inner_model.model_sampling
            window = sampling.percent_to_sigma(start_percent), sampling.percent_to_sigma(end_percent)
            extra = extra_args or {}

            def denoise(x: Tensor, sigma: float) -> Tensor:
                told: Tensor = model(x, torch.full((len(x),), sigma, device=x.device, dtype=x.dtype), **extra)
                return told

            def each(call: int, x: Tensor, x0: Tensor) -> None:
                if callback is not None:
                    callback({"i": min(call, len(sigmas) - 2), "x": x, "denoised": x0})

            asked = SamplerSettings(window=(float(window[0]), float(window[1])), **settings)
            steps = [float(sigma) for sigma in sigmas]
            return solve(denoise, x, steps, asked, motion, extra.get("seed") or 0, is_flow(sampling), each)

        return io.NodeOutput(KSAMPLER(sample_warpfuse))


class WarpfuseVideoSampler(io.ComfyNode):
    """Restyles a video frame by frame with ComfyUI's model in place of a bundle's UNet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The inputs of SamplerCustom, the frames, fusion, and a ControlNet with an image for every frame."""
        return io.Schema(
            node_id="WarpfuseVideoSampler",
            display_name="Warpfuse Video Sampler",
            category=CATEGORY,
            description="Restyles a video of any length with any checkpoint: each frame is encoded, starts from the "
            "last styled picture warped along the flow, is sampled, fused again and decoded, one at a time. "
            "LoRAs, ControlNets and adapters are those of the model and the conditioning.",
            inputs=[
                io.Model.Input("model", tooltip="Any image model, with its LoRAs and patches."),
                io.Vae.Input("vae", tooltip="Its autoencoder. A tiny one (TAESD) is several times as fast."),
                io.Conditioning.Input("positive", tooltip="What the result should look like."),
                io.Conditioning.Input("negative", tooltip="What the result should not look like."),
                images("Frames of the video in their order, any size."),
                io.Sampler.Input("sampler", tooltip="Any sampler, as from KSamplerSelect."),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip="From a scheduler with a denoise of 0.4 to 0.8, because sampling starts from the frame.",
                ),
                io.Float.Input("cfg", default=7.0, min=0.0, max=100.0, step=0.1, tooltip="Scale of the guidance."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**63 - 1,
                    control_after_generate=True,
                    tooltip="Seed of the noise, the same for every frame, because new noise makes the style flicker.",
                ),
                share("fusion", 0.8, "How firmly the style stays on objects. 0: every frame by itself."),
                share("entry", 1.0, "Part of the fusion applied to the start of the sampling; keeps strokes sharp."),
                share("exit", 1.0, "Part of the fusion applied to the result; keeps strokes still."),
                io.Combo.Input(
                    "cross_frame",
                    options=["off", "previous", "anchor+previous"],
                    default="off",
                    tooltip="Let frames attend to the one before, and to the first of the shot. For UNets.",
                ),
                motion(optional=True),
                io.ControlNet.Input(
                    "control_net", optional=True, tooltip="Guides every frame by its own control image."
                ),
                io.Image.Input(
                    "control_images", optional=True, tooltip="One image for every frame: edges, depth, poses."
                ),
                io.Float.Input(
                    "control_strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    optional=True,
                    tooltip="Strength of the ControlNet.",
                ),
                share("control_start", 0.0, "Part of the sampling after which the ControlNet begins.", optional=True),
                share("control_end", 1.0, "Part of the sampling after which the ControlNet ends.", optional=True),
            ],
            outputs=[io.Image.Output(display_name="images"), io.Latent.Output(display_name="latents")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        positive: Any,
        negative: Any,
        images: Tensor,
        sampler: Any,
        sigmas: Tensor,
        cfg: float,
        seed: int,
        fusion: float,
        entry: float,
        exit: float,
        cross_frame: str,
        motion: Any = None,
        control_net: Any = None,
        control_images: Tensor | None = None,
        control_strength: float = 1.0,
        control_start: float = 0.0,
        control_end: float = 1.0,
    ) -> io.NodeOutput:
        """Restyle the video. Raises BadInput if numbers of frames differ."""
        from warpfuse.comfy.cross_frame import StreamCrossFrame
        from warpfuse.comfy.motion import flow_of
        from warpfuse.comfy.nodes.networks import FrameNetworks, spatial_cells, with_control
        from warpfuse.comfy.video import VideoFusion, hints, restyle

        window = control_start, control_end
        hinted = hints(control_net, control_images, images, spatial_cells(vae))

        def conditioned(frame: int) -> tuple[Any, Any]:
            if hinted is None or not control_strength:
                return positive, negative
            return with_control((positive, negative), control_net, hinted[frame], control_strength, window, vae)

        attention = None if cross_frame == "off" else StreamCrossFrame(anchored=cross_frame == "anchor+previous")
        networks = FrameNetworks(model, vae, conditioned, sampler, sigmas, cfg, seed, attention)
        if motion is None:
            motion = flow_of(images, "balanced", 384, lambda done, rgb: None)
        styled, latents = restyle(images, motion, networks, VideoFusion(fusion, entry, exit), progress(len(images)))
        return io.NodeOutput(styled, {"samples": latents})
