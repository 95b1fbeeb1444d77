"""What one measurement came to."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Figure:
    """What one way came to.

    ms        of every call or frame, warm
    fps       calls or frames a second
    floor_ms  under one of them, by the networks alone
    rows      in a call of the UNet, on the mean, where streams share it; None elsewhere
    watts, gpu_mib, host_mib  while it ran; None where nobody tells
    """

    name: str
    floor_ms: float
    ms: list[float] = field(default_factory=list)
    fps: float = 0.0
    calls: float = 1.0
    rows: float | None = None
    watts: float | None = None
    gpu_mib: float | None = None
    host_mib: float | None = None

    def percentile(self, share: float) -> float:
        """Of `ms`; 0 where nothing was measured."""
        return float(np.percentile(self.ms, 100 * share)) if self.ms else 0.0

    @property
    def ratio(self) -> float:
        """Time over floor, by the rate: 1 cannot be passed."""
        return 1000 / self.fps / self.floor_ms if self.fps and self.floor_ms else 0.0

    def to_dict(self) -> dict[str, float | None]:
        """Plain types."""
        return {
            "fps": round(self.fps, 2),
            "ms_p50": round(self.percentile(0.5), 3),
            "ms_p95": round(self.percentile(0.95), 3),
            "ms_p99": round(self.percentile(0.99), 3),
            "floor_ms": round(self.floor_ms, 3),
            "ratio_to_floor": round(self.ratio, 2),
            "calls_a_frame": self.calls,
            **({} if self.rows is None else {"rows_a_call": round(self.rows, 2)}),
            "watts": self.watts,
            "gpu_mib": self.gpu_mib,
            "host_peak_mib": self.host_mib,
        }
