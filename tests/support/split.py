"""A UNet that is split at a deep feature, with only multiplications and additions: whole, and its shallow part."""

import torch

from support.polynomial import Polynomial, specs
from warpfuse.engine.contract import TensorSpec

CHANNELS = 8


def deep_of(inputs):
    """The deep feature: it depends on the latent, on the source and on the style."""
    return torch.cat((inputs["x"] * (1 + inputs["style"][:, :1, None, None]), inputs["source"]), 1)


class Whole(Polynomial):
    """Returns its deep feature too."""

    def __init__(self, batch=None):
        super().__init__(batch)
        self.outputs = (
            TensorSpec("output", "float32", (batch, 4, 8, 8)),
            TensorSpec("deep", "float32", (batch, 8, 8, 8)),
        )

    def __call__(self, inputs):
        deep = deep_of(inputs)
        return {"output": super().__call__(inputs)["output"] + _of(deep), "deep": deep}


class Shallow(Polynomial):
    """Is fed a deep feature. fed: the features so far."""

    def __init__(self, batch=None):
        super().__init__(batch)
        self.inputs = (*specs(batch), TensorSpec("deep", "float32", (batch, CHANNELS, None, None)))
        self.fed = []

    def __call__(self, inputs):
        self.fed.append(inputs["deep"].clone())
        return {"output": super().__call__(inputs)["output"] + _of(inputs["deep"])}


def _of(deep):
    return 0.25 * deep[:, :4] - 0.5 * deep[:, 4:]
