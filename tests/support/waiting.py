"""Waiting for a condition, without assumptions on how long it takes."""

import time

PATIENCE_S = 40


def until(holds, what, patience_s=PATIENCE_S):
    """Wait until `holds()` is true. Returns its value. The limit is for faults, not for slow machines."""
    end = time.monotonic() + patience_s
    while not (found := holds()):
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.02)
    return found
