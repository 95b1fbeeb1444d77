"""A UNet with only multiplications and additions, so that a row has the same bits in a batch and alone."""

import torch

from warpfuse.engine.contract import TensorSpec
from warpfuse.stages.diffusion.prompts import Conditioning

SHAPE = (1, 4, 8, 8)


class Polynomial:
    """output = x (a - b source) + style source; counts its calls and the rows of each. batch: rows it is built for."""

    def __init__(self, batch=None):
        self.inputs = specs(batch)
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


def specs(batch=None):
    """The inputs of a UNet with styles that also takes the source."""
    shapes = {"x": (None,) * 3, "source": (None,) * 3, "level": (2,), "style": (None,)}
    return tuple(TensorSpec(name, "float32", (batch, *shape)) for name, shape in shapes.items())


def conditioned(*style):
    """The conditioning of a style vector."""
    given = torch.tensor([style])
    return Conditioning({"style": given}, {"style": torch.zeros_like(given)})


def latent(seed):
    """A clean latent of a frame."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1000 + seed))
