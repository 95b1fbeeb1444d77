"""A stage that calls a hook of the user's: `source`, `x0` or `picture` of the file that `hooks` names."""

from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from warpfuse.stages.frame import Frame, Latent, Picture
from warpfuse.stages.hooks.hooks_file import PLACES, Hook
from warpfuse.stages.stage import Opening, Stage

T = TypeVar("T", bound=Frame)


def open(opening: Opening) -> Stage:
    """Open the stage, whose name is hook_PLACE. Raises HookError."""
    name = next(place for place in PLACES if opening.stage == f"hook_{place}")
    opening.say(f"hooks: {name} of {opening.config.hooks} is called for every frame")
    return HookStage(Hook(opening.config.hooks, name, opening.say))


class HookStage(Stage):
    """Picture -> Picture, or Latent -> Latent. A frame without tensors passes."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def __call__(self, frame: T) -> T:
        """Call the hook with a copy of the tensor, since others read the frame; it may be changed in place."""
        given = frame.rgb if isinstance(frame, Picture) else frame.z if isinstance(frame, Latent) else None
        if given is None:
            return frame
        made = self._hook(given.clone(), frame.stamp, lacks=lambda made: _differs(made, given))
        if made is None:
            return frame
        return replace(frame, ready=None, **{"rgb" if isinstance(frame, Picture) else "z": made})


def _differs(made: object, given: Tensor) -> str:
    if isinstance(made, Tensor) and (made.shape, made.dtype, made.device) == (given.shape, given.dtype, given.device):
        return ""
    expected = f"expected a tensor of {given.dtype} {list(given.shape)} on {given.device}"
    if not isinstance(made, Tensor):
        return f"{expected}, got {type(made).__name__}"
    return f"{expected}, got {made.dtype} {list(made.shape)} on {made.device}"
