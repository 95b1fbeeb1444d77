"""How often each network of a run is called."""

from warpfuse.graph.runtime.engines import Engines


def counted_calls(patch):
    """File stem of a network -> its calls, of every network opened from now on."""
    calls, opened = {}, Engines.open

    def counting(self, path, shapes=None):
        engine = opened(self, path, shapes)
        run_once = type(engine).__call__

        class Counted(type(engine)):
            def __call__(self, inputs):
                calls[path.stem] = calls.get(path.stem, 0) + 1
                return run_once(self, inputs)

        engine.__class__ = Counted
        return engine

    patch.setattr(Engines, "open", counting)
    return calls
