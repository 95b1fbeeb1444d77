"""The results of one measurement."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Figure:
    """The results of one measurement.

    floor_ms  least time of a call or frame, by its networks
    ms        times of all calls or frames after warming up
    fps       calls or frames a second
    calls     calls a frame
    rows      mean rows in a call of the UNet, if streams share it; else None
    watts, gpu_mib, host_mib  power and memory during the measurement; None: unknown
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
        """Percentile of `ms`, share in [0, 1]; 0 without measurements."""
        return float(np.percentile(self.ms, 100 * share)) if self.ms else 0.0

    @property
    def ratio(self) -> float:
        """Mean time over floor, at least 1; 0: unknown."""
        return 1000 / self.fps / self.floor_ms if self.fps and self.floor_ms else 0.0

    def to_dict(self) -> dict[str, float | None]:
        """The results in plain types, rounded."""
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
