"""A look at what a stage gives, for a page or a window: the stage itself knows nothing of it."""

from collections.abc import Callable
from typing import Any

from warpfuse.stages.borrowed import owned
from warpfuse.stages.stage import Delaying, Stage

Tap = Callable[..., None]
"""Called in the stage's thread, on its stream, with the Frame or RawFrame it gave. It must be short and keep what it
needs by reference; on a card tensors are still being written (`engine.cuda_streams.wrote` gives the event to wait for).
"""


class Tapped:
    """A stage, and a tap that sees every frame it gives before the links do."""

    def __init__(self, stage: Stage, tap: Tap) -> None:
        assert not isinstance(stage, Delaying), "frames that leave by flush() would pass the tap unseen"
        self._stage = stage
        self._tap = tap

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """What the stage gives."""
        return self._shown(self._stage(*args, **inputs))

    def held(self, *args: Any, **inputs: Any) -> Any:
        """What the stage gives of a held frame."""
        return self._shown(self._stage.held(*args, **inputs))

    def _shown(self, out: Any) -> Any:
        if out is not None:
            self._tap(owned(out))  # what the stage passes on may be borrowed
        return out

    def update(self, settings: Any) -> None:
        """For the stage."""
        self._stage.update(settings)

    def close(self) -> None:
        """For the stage."""
        self._stage.close()
