"""Errors of the stages.

WarpfuseError
├── BadInput
│   ├── SourceError           a source cannot be opened: missing, not a video, no frames
│   ├── AttentionError        attention is set for a bundle that was exported without it
│   ├── DeepCacheError        cache_deep is set for a bundle whose UNet is not split
│   ├── ImageError            a style image the bundle does not take, or a file that holds no picture
│   ├── ControlError          a control the bundle does not have, or a control map that cannot be made
│   ├── HookError             a file of hooks that is not there, cannot be loaded or defines none (hooks_file.py)
│   ├── KeyframeError         a keyframe that cannot be read (picture_file.py)
│   ├── LoraError             a live LoRA the bundle does not have, or a scale out of range
│   ├── KernelError           machine code of a picture loop cannot be kept on disk (cpu/compile.py)
│   ├── MaskError             a mask that cannot be read, or whose network has other inputs or outputs
│   ├── SinkError             a sink cannot be opened: folder missing, not writable, unknown kind
│   ├── SolverError           a solver that does not exist, or levels it does not solve on (solvers/solver.py)
│   └── StyleError            a prompt names a style the bundle does not have
├── StreamLost                a source or sink that worked is gone for good: disk full, device unplugged
│   ├── SourceLost
│   └── SinkLost
└── Stopped                   the run was stopped while its source was connecting: there is nothing to finish
"""

from typing import Any

from warpfuse.engine.errors import BadInput, WarpfuseError


class SourceError(BadInput):
    """A source cannot be opened or holds no picture."""


class AttentionError(BadInput):
    """Attention is set for a bundle that was exported without it."""


class DeepCacheError(BadInput):
    """`cache_deep` is set for a bundle whose UNet is not split."""


class ControlError(BadInput):
    """A control the bundle does not have, or a control map that cannot be made."""


class KeyframeError(BadInput):
    """A keyframe that cannot be read."""


class HookError(BadInput):
    """A file of hooks that is not there, cannot be loaded or defines none."""


class ImageError(BadInput):
    """A style image the bundle does not take, or a file that holds no picture."""


class LoraError(BadInput):
    """A live LoRA the bundle does not have, or a scale out of range."""


class KernelError(BadInput):
    """Machine code of a picture loop cannot be kept on disk."""


class MaskError(BadInput):
    """A mask that cannot be read, or whose network has other inputs or outputs."""


class SinkError(BadInput):
    """A sink cannot be opened for writing."""


class StyleError(BadInput):
    """A prompt names a style the bundle does not have."""


class StreamLost(WarpfuseError):
    """A stream that worked is gone for good. `stats`: the figures of the run, if it could end in order; else None."""

    stats: Any = None


class SourceLost(StreamLost):
    """The source gives no more frames and will not come back."""


class SinkLost(StreamLost):
    """The sink takes no more frames: disk full, peer gone."""


class Stopped(WarpfuseError):
    """The run was stopped before there was anything to finish."""
