"""Saying what is refused of messages that come in numbers, as those of a fader."""

from warpfuse.graph.runtime.context import Say

_MOST = 100


class Refusals:
    """Says each complaint once, and a hundred of them at most: who sends more is not answered any more.

    Not thread-safe.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said: set[str] = set()

    def __call__(self, line: str, about: str = "") -> None:
        """Say a line. about: of the lines about this only the first is said; "": about itself."""
        about = about or line
        if about not in self._said and len(self._said) < _MOST:
            self._said.add(about)
            self._say(line)
