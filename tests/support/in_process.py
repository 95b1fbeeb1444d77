"""Running a graph in this process to its end, and the pictures of its sink."""

from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.thread_run import ThreadRun


class Kept:
    """A sink that keeps a copy of every picture."""

    def __init__(self):
        self.notes, self.shown = [], []

    def write(self, frame):
        self.shown.append(frame.rgb.copy())

    def close(self, complete):
        pass


def shown_by(context, source, **ends):
    """The pictures that the sink got, uint8 [h, w, 3] each. source: opens the source. Closes the context."""
    sink = Kept()
    run = ThreadRun(context, Endpoints(source, lambda url: sink, **ends), failures=1)
    try:
        run.open()
        run.start()
        run.wait()
    finally:
        run.close()
        context.close()
    return sink.shown
