"""An event that threads of a run set and coroutines of the server wait for."""

import asyncio
import threading
from contextlib import suppress


class AsyncEvent:
    """Counts how often it happened and wakes whoever waits. `notify` from any thread; without a waiter it only counts.

    Not a `stages.timing.Waker`: any number of coroutines, of any loop, wait for it, and each learns of every time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self.count = 0

    def notify(self) -> None:
        """Count one event and wake every waiter. Thread-safe."""
        with self._lock:
            self.count += 1
            waiting, self._waiting = self._waiting, set()
        for loop, event in waiting:
            with suppress(RuntimeError):  # its loop was closed meanwhile
                loop.call_soon_threadsafe(event.set)

    async def wait(self, after: int, timeout: float | None = None) -> int:
        """Wait until the count exceeds `after`, for at most `timeout` seconds. Returns the count."""
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        with self._lock:
            if self.count > after:
                return self.count
            self._waiting.add(entry)
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(entry)
        return self.count
