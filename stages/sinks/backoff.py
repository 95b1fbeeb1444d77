"""How long to wait before the next attempt."""

from collections.abc import Callable


class Backoff:
    """Full jitter: a random share of a bound that doubles from `first_s` to `most_s`. Pure; time and chance are given.

    Jitter keeps the clients of one server that came back from arriving all at once. A connection that held for
    `healthy_s` makes the bound start anew.
    """

    def __init__(
        self, chance: Callable[[], float], first_s: float = 0.5, most_s: float = 30.0, healthy_s: float = 10.0
    ) -> None:
        self._chance = chance
        self._first_s, self._most_s, self._healthy_s = first_s, most_s, healthy_s
        self._failures = 0

    def lost(self, held_s: float) -> float:
        """Seconds to wait after a connection that held for `held_s`; 0 for one that was never made."""
        if held_s >= self._healthy_s:
            self._failures = 0
        bound = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return bound * self._chance()
