"""A UNet of multiplications and additions alone, so that a batch gives each row the very bits it gets alone."""

import torch

from warpfuse.engine.contract import TensorSpec

SHAPE = (1, 4, 8, 8)


class Polynomial:
    """output = x (a - b source) + style source; counts its calls and the rows of each. batch: rows it is built for."""

    def __init__(self, batch=None):
        self.inputs = (TensorSpec("x", "float32", (batch, None, None, None)),)
        self.rows, self.closed = [], False

    def __call__(self, inputs):
        x, source, level, style = (inputs[name] for name in ("x", "source", "level", "style"))
        assert self.inputs[0].shape[0] in (None, len(x))
        self.rows.append(len(x))
        alpha = level[:, :1, None, None]
        gain, tint = style[:, :1, None, None], style[:, 1:2, None, None]
        return {"output": x * (alpha - 0.1 * source) + gain * source + tint * x * x * 0.05}

    def close(self):
        self.closed = True


def latent(seed):
    """A clean latent of a frame."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1000 + seed))
