"""A still picture at an address of a camera, which is fetched again and again."""

import threading
import time
from collections.abc import Iterator
from fractions import Fraction

from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.multipart import Decoders
from warpfuse.stages.sources.session import Nature, ReceivedPicture
from warpfuse.stages.sources.web_request import Answer, Requests

USUAL_RATE = Fraction(5)
"""Default number of pictures a second: cameras take some tenths of a second for each."""
_MOST = 1 << 26  # bytes


class SnapshotSession:
    """Fetches a picture at most `rate` times a second. answer: the first one."""

    def __init__(self, requests: Requests, answer: Answer, rate: Fraction) -> None:
        self._requests, self._answer = requests, answer
        self._decode = Decoders()
        self._closing = threading.Event()
        self.nature = Nature(rate, note=f"a still picture: fetched {float(rate):g} times a second (#fps=N)")

    def pictures(self) -> Iterator[ReceivedPicture | None]:
        """Yield the picture each time it was fetched; None if it cannot be decoded."""
        while True:
            begun = time.monotonic()
            frame = self._decode(self._answer.whole(_MOST))
            self._answer.close()
            yield ReceivedPicture(frame) if frame is not None else None
            if self._closing.wait(max(0.0, begun + float(1 / self.nature.rate) - time.monotonic())):
                raise Broken(Fault.ENDED, "it was told to end")
            self._answer = self._requests.ask()

    def interrupt(self) -> None:
        """End `pictures` before the next fetch."""
        self._closing.set()

    def close(self) -> None:
        """Close the connection."""
        self._answer.close()
