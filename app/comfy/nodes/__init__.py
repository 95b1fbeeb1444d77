"""The nodes, as ComfyUI's nodes of version 3. Importing this needs ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from warpfuse.comfy.nodes.model import WarpfuseCrossFrame, WarpfuseFuseModel
from warpfuse.comfy.nodes.motion import WarpfuseFlow, WarpfuseWarp
from warpfuse.comfy.nodes.sampling import WarpfuseSampler, WarpfuseVideoSampler
from warpfuse.comfy.nodes.stylize import WarpfuseBundle, WarpfuseLive, WarpfuseStylize

NODES: list[type[io.ComfyNode]] = [
    WarpfuseBundle,
    WarpfuseStylize,
    WarpfuseLive,
    WarpfuseFlow,
    WarpfuseWarp,
    WarpfuseFuseModel,
    WarpfuseSampler,
    WarpfuseVideoSampler,
    WarpfuseCrossFrame,
]


def extension() -> ComfyExtension:
    """The extension object from which ComfyUI gets the nodes."""

    class Warpfuse(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return NODES

    return Warpfuse()
