"""Taps: callbacks that see every output of a stage, for a page or a window. The stage is unaware of them."""

from collections.abc import Callable
from typing import Any

from warpfuse.stages.borrowed import owned
from warpfuse.stages.stage import Delaying, Stage

Tap = Callable[..., None]
"""Called in the stage's thread, on its CUDA stream, with the stage's output, a Frame or RawFrame. It must return
quickly and may keep references. On a card the tensors are still being written: `engine.cuda_streams.wrote` gives the
event to wait for.
"""


class Tapped:
    """A stage with a tap, which is called with every output before it is sent."""

    def __init__(self, stage: Stage, tap: Tap) -> None:
        assert not isinstance(stage, Delaying), "frames that leave by flush() would pass the tap unseen"
        self._stage = stage
        self._tap = tap

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """The stage's output."""
        return self._shown(self._stage(*args, **inputs))

    def held(self, *args: Any, **inputs: Any) -> Any:
        """The stage's output for a held frame."""
        return self._shown(self._stage.held(*args, **inputs))

    def _shown(self, out: Any) -> Any:
        if out is not None:
            self._tap(owned(out))  # the output may contain borrowed memory
        return out

    def update(self, settings: Any) -> None:
        """Pass new settings to the stage."""
        self._stage.update(settings)

    def close(self) -> None:
        """Close the stage."""
        self._stage.close()
