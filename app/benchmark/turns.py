"""The order of measurements that are compared."""

from collections.abc import Callable, Sequence

TURNS = 2
"""Number of turns of each measurement. A given duration is divided among them."""


def there_and_back(ways: Sequence[Callable[[], object]]) -> None:
    """Run each measurement twice, in order and then in reverse, so that the mean time of both turns is equal for all.

    A machine that gets steadily slower, or is slow in the second half, then affects all measurements equally. In
    sequence it would affect the last ones most.
    """
    for way in (*ways, *reversed(ways)):
        way()
