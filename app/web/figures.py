"""Frame rate and latency of the last two seconds, for charts."""

import threading
from collections import deque
from dataclasses import dataclass

_WINDOW_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Moment:
    """fps: frames a second; p50, p95, newest: latency in ms. All are 0 without frames."""

    fps: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    newest: float = 0.0


class Recent:
    """The frames of the last two seconds. One thread calls `add`, any thread `at`; both take the time, ns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: deque[tuple[int, int]] = deque()
        self._began_ns = 0

    def add(self, now_ns: int, latency_ns: int) -> None:
        """Add a frame that was shown. latency_ns: time since its arrival."""
        with self._lock:
            self._began_ns = self._began_ns or now_ns
            self._frames.append((now_ns, latency_ns))
            self._forget(now_ns)

    def at(self, now_ns: int) -> Moment:
        """The figures of the two seconds before `now_ns`."""
        with self._lock:
            self._forget(now_ns)
            frames = list(self._frames)
        if not frames:
            return Moment()
        latencies = sorted(latency for _, latency in frames)
        if now_ns - self._began_ns >= _WINDOW_NS:
            fps = len(frames) * 1e9 / _WINDOW_NS
        else:
            fps = (len(frames) - 1) * 1e9 / max(frames[-1][0] - frames[0][0], 1)
        middle, late = len(latencies) // 2, min(len(latencies) - 1, len(latencies) * 95 // 100)
        return Moment(round(fps, 2), _ms(latencies[middle]), _ms(latencies[late]), _ms(frames[-1][1]))

    def _forget(self, now_ns: int) -> None:
        while self._frames and now_ns - self._frames[0][0] > _WINDOW_NS:
            self._frames.popleft()


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 2)
