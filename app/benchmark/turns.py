"""The order in which ways that are compared are measured."""

from collections.abc import Callable, Sequence

TURNS = 2
"""How often each is measured; who measures for a given time takes half of it in each turn."""


def there_and_back(ways: Sequence[Callable[[], object]]) -> None:
    """Each way twice, in order and then in reverse: the middle of its two turns is the same moment for all.

    So a machine that gets slower and slower takes as much from the first way as from the last, and one that is slow in
    the second half slows a turn of each. Measured one after another, the last alone would pay.
    """
    for way in (*ways, *reversed(ways)):
        way()
