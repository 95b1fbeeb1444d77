"""From the threads of a run to the coroutines of the server: a bell that many wait for and nobody has to hear."""

import asyncio
import threading
from contextlib import suppress


class Bell:
    """Counts its strokes and wakes whoever waits. `ring` from any thread; without a waiter it only counts.

    Not a `stages.timing.Waker`: any number of coroutines, of any loop, wait for a stroke, and each hears every one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self.strokes = 0

    def ring(self) -> None:
        """Wake all that wait."""
        with self._lock:
            self.strokes += 1
            waiting, self._waiting = self._waiting, set()
        for loop, event in waiting:
            with suppress(RuntimeError):  # its loop was closed meanwhile
                loop.call_soon_threadsafe(event.set)

    async def heard(self, after: int, timeout: float | None = None) -> int:
        """Wait until there were more than `after` strokes, or `timeout` seconds; the number of strokes."""
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        with self._lock:
            if self.strokes > after:
                return self.strokes
            self._waiting.add(entry)
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(entry)
        return self.strokes
