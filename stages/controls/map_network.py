"""Networks from a picture to a map of it: a mask, edges, depth."""

from torch import Tensor

from warpfuse.engine.contract import Engine
from warpfuse.engine.errors import EngineError
from warpfuse.stages.arithmetic import arithmetic


class MapNetwork:
    """A network from a picture to a map of it. Pictures of another size than the network's are resized for it, and the
    map back. Owns the engine.

    Raises EngineError for an engine of other inputs or outputs.
    """

    def __init__(self, engine: Engine) -> None:
        self._size = _size_of(engine)
        self._engine = engine
        self._ops = arithmetic(engine.device)

    @property
    def device(self) -> str:
        """The device of pictures and maps."""
        return self._engine.device

    def __call__(self, rgb: Tensor) -> Tensor:
        """rgb [1, 3, h, w] in [0, 1] -> map [1, 1 or 3, h, w] in [0, 1]: a new tensor."""
        size = rgb.shape[-2], rgb.shape[-1]
        fed = rgb if size == self._size else self._ops.resized(rgb, self._size)
        found = self._engine({"rgb": fed.contiguous()})["map"].clamp(0, 1)
        return found if size == self._size else self._ops.resized(found, size).clamp_(0, 1)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def _size_of(engine: Engine) -> tuple[int, int]:
    """The (H, W) for which the engine was opened. Raises EngineError."""
    given, gives = {spec.name: spec.shape for spec in engine.inputs}, {spec.name for spec in engine.outputs}
    if given.keys() != {"rgb"} or gives != {"map"}:
        raise EngineError(
            f"network of a map: expected input rgb and output map; got {', '.join(sorted(given))} and"
            f" {', '.join(sorted(gives))}. Give a bundle of kind 'map'"
        )
    h, w = given["rgb"][-2:]
    if h is None or w is None:
        raise EngineError(f"network of a map: expected rgb of a fixed size, got {given['rgb']}. Open it for a size")
    return h, w
