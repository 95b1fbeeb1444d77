"""Nodes for bundles of warpfuse: choosing one, restyling a clip, restyling a live stream."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from warpfuse.comfy.nodes.sockets import BUNDLE, CATEGORY, images, progress, share

_SETTINGS = """Further keys of a graph file, as YAML. For example:
flow: embedded
stages: {fuse: {reference: latent}, predict: {stream: true}}"""


def _inputs() -> list[Any]:
    return [
        BUNDLE.Input("bundle", tooltip="The networks, from WarpfuseBundle."),
        images("Frames of a video in their order, any size."),
        io.String.Input(
            "prompt",
            default="",
            multiline=True,
            dynamic_prompts=True,
            tooltip="A style of the bundle, or a blend as in 'ink:2, watercolour'; for a checkpoint any text. "
            "Empty: the bundle's default.",
        ),
        io.String.Input(
            "negative",
            default="",
            multiline=True,
            dynamic_prompts=True,
            tooltip="What guidance pulls away from. Needs 'stages: {predict: {guidance: full, guidance_scale: 5}}' "
            "in the settings.",
        ),
        share("fusion", 0.8, "How firmly the style stays on objects. 0: every frame by itself."),
        share("strength", 1.0, "0: the source picture, 1: the full style."),
        io.Int.Input(
            "steps", default=1, min=1, max=20, tooltip="Runs of the UNet for each frame. The embedded styles need one."
        ),
        io.Int.Input(
            "seed", default=0, min=0, max=2**63 - 1, control_after_generate=True, tooltip="Seed of the noise."
        ),
        io.String.Input("settings", default="", multiline=True, optional=True, tooltip=_SETTINGS, placeholder="YAML"),
    ]


class WarpfuseBundle(io.ComfyNode):
    """A bundle by name, with its files verified."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One input: a combo of the bundles that exist now."""
        from warpfuse.comfy.bundles import diffusion_bundles

        return io.Schema(
            node_id="WarpfuseBundle",
            display_name="Warpfuse Bundle",
            category=CATEGORY,
            description="Networks to style with: the embedded styles, or a checkpoint made into a bundle by "
            "'warpfuse export'. Every file is checked against its sha256.",
            inputs=[
                io.Combo.Input(
                    "name", options=diffusion_bundles(), tooltip="A bundle, as listed by 'warpfuse bundles'."
                )
            ],
            outputs=[BUNDLE.Output(display_name="bundle")],
        )

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        """Verify the bundle. Raises BundleError for a missing or damaged file."""
        from warpfuse.engine.bundle import load_bundle

        return io.NodeOutput(str(load_bundle(name).folder))


class WarpfuseStylize(io.ComfyNode):
    """Restyles a clip by a new Pipeline."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The inputs are those of a graph file."""
        return io.Schema(
            node_id="WarpfuseStylize",
            display_name="Warpfuse Stylize",
            category=CATEGORY,
            description="Restyles a video; the style stays on objects along the optical flow.",
            inputs=_inputs(),
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images: Tensor, settings: str = "", **keys: Any) -> io.NodeOutput:
        """Restyle the clip. An interruption ends it and all its threads. Raises BadInput."""
        from warpfuse.comfy.styling import graph_keys, stylize

        return io.NodeOutput(stylize(images, graph_keys(settings, **keys), progress(len(images))))


class WarpfuseLive(io.ComfyNode):
    """Restyles some frames of a stream that continues from run to run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The inputs of `WarpfuseStylize`, and the stream's name."""
        name = io.String.Input(
            "stream", default="live", tooltip="Name of the stream. Runs with the same name continue the same video."
        )
        return io.Schema(
            node_id="WarpfuseLive",
            display_name="Warpfuse Live",
            category=CATEGORY,
            description="Restyles a live video, one frame or a few in each run of the queue; the last picture "
            "is kept until the next run, for half a minute. Works inside comfystream.",
            inputs=[*_inputs(), name],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """Never the same value, so that ComfyUI does not reuse results: an equal frame is the next one all the same."""
        return float("nan")

    @classmethod
    def execute(cls, images: Tensor, stream: str, settings: str = "", **keys: Any) -> io.NodeOutput:
        """Restyle the next frames of the stream. Raises BadInput."""
        from warpfuse.comfy.streams import shared_streams
        from warpfuse.comfy.styling import graph_keys

        each = progress(len(images), preview=len(images) > 1)
        return io.NodeOutput(shared_streams().restyle(stream, images, graph_keys(settings, **keys), each))
