"""Restyling pictures by a `Pipeline`, and the difference of two results."""

import numpy as np

import warpfuse


def styled(pictures, change=None, **keys):
    """The pictures restyled by a pipeline with these keys. change: new keys, by the number of the picture before which
    they are set."""
    with warpfuse.Pipeline(**keys) as pipeline:
        out = []
        for number, picture in enumerate(pictures):
            if change is not None and number in change:
                pipeline.update(**change[number])
            out.append(pipeline.push(picture))
        out += pipeline.drain()
    return [picture for picture in out if picture is not None]


def far(a, b):
    """The largest difference of two lists of pictures, in levels."""
    return max(int(np.abs(one.astype(int) - other).max()) for one, other in zip(a, b, strict=True))
