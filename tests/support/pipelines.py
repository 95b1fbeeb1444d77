"""Pictures through a `Pipeline`, and how far two runs of them are apart."""

import numpy as np

import warpfuse


def styled(pictures, change=None, **keys):
    """Every picture that a pipeline of these keys gives; `change`, number -> new keys, is made before that picture."""
    with warpfuse.Pipeline(**keys) as pipeline:
        out = []
        for number, picture in enumerate(pictures):
            if change is not None and number in change:
                pipeline.update(**change[number])
            out.append(pipeline.push(picture))
        out += pipeline.drain()
    return [picture for picture in out if picture is not None]


def far(a, b):
    """The largest difference of two runs of pictures, levels."""
    return max(int(np.abs(one.astype(int) - other).max()) for one, other in zip(a, b, strict=True))
