"""An engine that changes to a faster one during a run, once that one is built and gives the same results."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from torch import Tensor

from warpfuse.engine.contract import Engine, is_capturable
from warpfuse.engine.errors import one_line

TOLERANCE = 0.05
"""Largest allowed difference of a value from the reference, as a share of the output's largest value. The export allows
the same for half precision, which has far outliers."""

MEAN_SHARE = 0.1
"""Largest allowed mean difference, as a share of the one for single values. A wrong layout, a wrong mode of an operator
or an overflow gives far more; half precision through a UNet gives a tenth of it."""


class SwappingEngine:
    """Runs `current` until the engine of `future` is built and gives the same outputs for a real input, then runs that.

    future     the engine being built
    tell       called once with a line that says that the engine was swapped, or why it was not
    tolerance  max |new - old| <= tolerance * max |old|, mean |new - old| <= `MEAN_SHARE` of that, for every output

    The check runs both engines on the first input after `future` is done. It waits for the device, so that frame is
    late. Closes both engines. See `Engine` for the contract; the swap does not shorten the life of earlier outputs.
    """

    def __init__(
        self, current: Engine, future: Future[Engine], tell: Callable[[str], None], tolerance: float = TOLERANCE
    ) -> None:
        self._engine = current
        self._future: Future[Engine] | None = future
        self._tell = tell
        self._tolerance = tolerance
        self._retired: Engine | None = None
        self._calls_left = 0
        self._take_over(current)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Run the current engine once."""
        if self._retired is not None:
            self._retire()
        if self._future is None or not self._future.done():
            return self._engine(inputs)
        future, self._future = self._future, None
        return self._judge(future, inputs)

    @property
    def capturable(self) -> bool:
        """See `is_capturable`. As long as the engine may be swapped, a graph would go on with the old one."""
        return self._future is None and self._retired is None and is_capturable(self._engine)

    def close(self) -> None:
        """Close the engines. If a build cannot be cancelled any more, its engine is closed as soon as it is built."""
        future, self._future = self._future, None
        if future is not None and not future.cancel():
            future.add_done_callback(_close_result)
        if self._retired is not None:
            self._retired.close()
            self._retired = None
        self._engine.close()

    def _judge(self, future: Future[Engine], inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        old = self._engine
        expected = old(inputs)
        if future.cancelled():
            self._tell(f"stays on {old.backend}: the build of the new engine was cancelled")
            return expected
        error = future.exception()
        if error is not None:
            self._tell(f"stays on {old.backend}: the new engine could not be built: {one_line(error, 300)}")
            return expected
        new = future.result()
        try:
            got = new(inputs)
            reason = self._disagreement(expected, got)
        except Exception as failure:  # noqa: BLE001  whatever the new engine raises, the old one goes on; told below
            reason = f"it fails on a real input: {one_line(failure, 300)}"
        if reason is not None:
            self._tell(f"stays on {old.backend}: {new.backend} is built but {reason}")
            new.close()
            return expected
        self._retired, self._calls_left = old, 2
        self._take_over(new)
        self._tell(f"runs on {new.backend} now, before on {old.backend}")
        return got

    def _disagreement(self, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> str | None:
        if expected.keys() != got.keys():
            return f"gives {', '.join(sorted(got))}, expected {', '.join(sorted(expected))}"
        for name, reference in expected.items():
            if got[name].shape != reference.shape:
                return f"gives '{name}' as {list(got[name].shape)}, expected {list(reference.shape)}"
            scale = float(reference.abs().max())
            gaps = (got[name].float() - reference.float()).abs()
            for what, apart, share in (
                ("at most", float(gaps.max()), self._tolerance),
                ("on the mean", float(gaps.mean()), self._tolerance * MEAN_SHARE),
            ):
                if not (math.isfinite(apart) and apart <= share * scale):
                    return f"disagrees: '{name}' is {apart:.3g} off {what} where {share:g} of {scale:.3g} is allowed"
        return None

    def _take_over(self, engine: Engine) -> None:
        self._engine = engine
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.backend, self.device = engine.backend, engine.device

    def _retire(self) -> None:
        """Close the old engine at the second call after the swap, when none of its outputs is valid any more."""
        self._calls_left -= 1
        if self._calls_left == 0 and self._retired is not None:
            self._retired.close()
            self._retired = None


def _close_result(future: Future[Engine]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
