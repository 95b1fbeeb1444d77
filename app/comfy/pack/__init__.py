"""The nodes of warpfuse. This folder is all that ComfyUI sees; the nodes are in the package `warpfuse`."""

try:
    from warpfuse.comfy import comfy_entrypoint
except ImportError as error:
    raise ImportError(
        f"the nodes of warpfuse are off: warpfuse is not installed where ComfyUI runs ({error}). "
        f"Run in the environment of ComfyUI: pip install 'warpfuse[cpu]'"
    ) from None

__all__ = ["comfy_entrypoint"]
