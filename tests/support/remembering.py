"""A UNet with attention to earlier frames, in which the tokens that it returns and takes are combined by plain sums."""

import torch
from torch.nn.functional import avg_pool2d

from support.polynomial import Polynomial, specs
from warpfuse.engine.bundle_parts import AttentionLayer, AttentionMemory
from warpfuse.engine.contract import TensorSpec

LAYERS = (
    AttentionLayer(name="fine", rows=8, columns=8, width=4),
    AttentionLayer(name="half", rows=4, columns=4, width=4),
)
FINE, HALF = (layer.numbers for layer in LAYERS)


def memory(references=2):
    return AttentionMemory(references=references, layers=LAYERS)


class Remembering(Polynomial):
    """Returns its latent as the tokens of two layers, and adds tokens of earlier frames, each with its own factor."""

    def __init__(self, batch=None, references=2):
        super().__init__(batch)
        shapes = {"past": (references, FINE + HALF), "past_weight": (references, 8, 8), "own_weight": (1,)}
        self.inputs = (*specs(batch), *(TensorSpec(name, "float32", (batch, *shape)) for name, shape in shapes.items()))
        self.fed = []

    def __call__(self, inputs):
        self.fed.append({name: tensor.clone() for name, tensor in inputs.items()})
        x, past, weight, own = (inputs[name] for name in ("x", "past", "past_weight", "own_weight"))
        output = super().__call__(inputs)["output"] * (0.5 + 0.5 * own[..., None, None])
        for p in range(past.shape[1]):
            fine = past[:, p, :FINE].view(-1, 8, 8, 4).permute(0, 3, 1, 2)
            half = past[:, p, FINE:].view(-1, 4, 4, 4).permute(0, 3, 1, 2)
            seen = fine + half.repeat_interleave(2, 2).repeat_interleave(2, 3)
            output = output + (0.125 + 0.0625 * p) * weight[:, p : p + 1] * seen
        tokens = [part.permute(0, 2, 3, 1).flatten(1) for part in (x, avg_pool2d(x, 2))]
        return {"output": output, "kept": torch.cat(tokens, 1)}


def kept_of(x):
    return torch.cat([part.permute(0, 2, 3, 1).flatten(1) for part in (x, avg_pool2d(x, 2))], 1)
