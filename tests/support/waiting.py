"""Wait for what a thread does, without a guess at how long it takes."""

import time

PATIENCE_S = 40


def until(holds, what, patience_s=PATIENCE_S):
    """Look until `holds()` is true; what it gave. The limit is for a fault, not for a slow machine."""
    end = time.monotonic() + patience_s
    while not (found := holds()):
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.02)
    return found
