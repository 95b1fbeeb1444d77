"""A graph run in this process to its end, and the pictures that came out of it."""

import threading

from warpfuse.graph.runtime.endpoints import Ends
from warpfuse.graph.runtime.thread_run import Running


class Kept:
    """A sink that keeps a copy of every picture."""

    def __init__(self):
        self.notes, self.shown = [], []

    def write(self, frame):
        self.shown.append(frame.rgb.copy())

    def close(self, complete):
        pass


def shown_by(materials, source, **ends):
    """What the sink was given, uint8 [h, w, 3] each; source opens one. Closes the materials."""
    sink = Kept()
    running = Running(materials, Ends(source, lambda url: sink, **ends), threading.Event(), failures=1)
    try:
        running.open()
        running.wait()
    finally:
        running.close()
        materials.close()
    return sink.shown
