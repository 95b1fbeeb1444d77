"""Memory and power during a measurement."""

import sys
import time
from pathlib import Path
from typing import Any

import psutil

from warpfuse.engine import device as card

_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


def host_peak_mib() -> float:
    """Peak memory of this process, MiB."""
    try:
        import resource
    except ImportError:  # Windows
        return round(float(psutil.Process().memory_info().peak_wset) / 2**20, 1)
    most = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # type: ignore[attr-defined, unused-ignore]
    return round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)


def gpu_mib(device: str) -> float | None:
    """Memory in use on the card by all processes, MiB; None without a card."""
    if not device.startswith("cuda"):
        return None
    free, total = card.memory_of(device)
    return round((total - free) / 2**20, 1)


class PowerMeter:
    """Measures mean power: of the card by its driver, else of the processor if its counter can be read."""

    def __init__(self, device: str) -> None:
        self._of_card = device.startswith("cuda")
        self._card = _card(device)
        self._begun = self._energy()
        self._at = time.perf_counter()

    def watts(self) -> float | None:
        """Mean watts since this object was made; None: unknown."""
        now = self._energy()
        seconds = time.perf_counter() - self._at
        if now is None or self._begun is None or seconds <= 0 or now < self._begun:
            return None
        return round((now - self._begun) / seconds, 1)

    def _energy(self) -> float | None:
        """Energy used so far, joules; None: unknown."""
        try:
            if self._of_card:
                import pynvml

                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._card)) / 1000
            return int(_RAPL.read_text()) / 1e6
        except Exception:  # noqa: BLE001  no such counter, no right to read it, or the binding's own types
            return None


def _card(device: str) -> Any:
    if not device.startswith("cuda"):
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(card.uuid_of(device))
    except Exception:  # noqa: BLE001  as above
        return None
