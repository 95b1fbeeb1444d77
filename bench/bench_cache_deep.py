"""What does it save to run the deep part of a UNet every N-th frame? The stage `predict` with N = 1, 2 and 3, by turns.

    python bench/bench_cache_deep.py [--family sd-turbo] [--size 256x256] [--layers 1] [--rounds 3] [--count-only]

The UNet has the published architecture, with random weights, and is run by torch. So its time is real, and its pictures
say nothing. The work of the shallow part as a share of the whole is counted for every number of layers.
"""

import argparse
import json
import os
import statistics
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from warpfuse.engine.contract import TensorSpec
from warpfuse.export.diffusion import published
from warpfuse.export.diffusion.deep import DeepSplit
from warpfuse.export.diffusion.networks import UNet
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.prompts import Conditioning
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling
from warpfuse.stages.diffusion.settings import FuseSettings
from warpfuse.stages.frame import Frame, Latent, Motion, Stamp
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import level_at, levels

EVERY = (1, 2, 3)
FRAMES = 6  # of a turn: a multiple of every N


class Network:
    """A module as an engine."""

    backend, device = "torch", "cpu"

    def __init__(self, module: nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str]) -> None:
        self.inputs = tuple(TensorSpec(name, "float32", tuple(x.shape)) for name, x in inputs.items())
        self.outputs = tuple(TensorSpec(name, "float32", (None,)) for name in outputs)
        self._module = module

    def __call__(self, inputs):
        """Call the module."""
        with torch.inference_mode():
            found = self._module(*(inputs[spec.name] for spec in self.inputs))
        found = found if isinstance(found, tuple) else (found,)
        return dict(zip((spec.name for spec in self.outputs), found, strict=True))

    def close(self) -> None:
        """Nothing is held."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default="sd-turbo")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count-only", action="store_true")
    options = parser.parse_args()
    width, height = (int(n) for n in options.size.split("x"))
    config = published.UNETS[options.family]
    report = {"family": options.family, "size": options.size, "shallow_share": _shares(config, width, height)}
    if not options.count_only:
        report |= _timed(config, width, height, options.layers, options.rounds)
    report["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps(report))


def _inputs(config, width, height, device="cpu"):
    x = torch.randn(1, 4, height // 8, width // 8, device=device)
    context = torch.randn(1, 77, config["cross_attention_dim"], device=device)
    return {"x": x, "timestep": torch.full((1,), 999.0, device=device), "context": context}


def _unet(config, device):
    from diffusers import UNet2DConditionModel

    with torch.device(device):
        return UNet2DConditionModel(**config).eval().requires_grad_(False)


def _shares(config, width, height):
    """Operations of the shallow part over those of the whole, by number of layers."""
    network = _unet(config, "meta")
    inputs = _inputs(config, width, height, "meta")
    found = {}
    for layers in (1, 2, 3):
        split = DeepSplit(network, layers)
        counts = []
        with torch.no_grad():
            whole = split.whole(UNet(network))
            deep = whole(*inputs.values())[1]
            for module, fed in ((whole, inputs), (split.shallow(UNet(network)), {**inputs, "deep": deep})):
                with FlopCounterMode(display=False) as counter:
                    module(*fed.values())
                counts.append(counter.get_total_flops())
        found[layers] = round(counts[1] / counts[0], 3)
    return found


def _timed(config, width, height, layers, rounds):
    torch.manual_seed(0)
    network = _unet(config, "cpu")
    inputs = _inputs(config, width, height)
    split = DeepSplit(network, layers)
    deep = torch.zeros(1)  # its shape is not asked for
    whole = Network(split.whole(UNet(network)), inputs, ["output", "deep"])
    shallow = Network(split.shallow(UNet(network)), {**inputs, "deep": deep}, ["output"])
    table = levels()
    sampling = Sampling("epsilon", open_solver("turbo"), lambda t: level_at(table, t), 999.0, 200.0, False)
    conditioning = Conditioning({"context": inputs["context"]}, {"context": inputs["context"]})
    stages = {}
    for every in EVERY:
        told = PredictSettings(conditioning, 1.0, 1, FuseSettings(), cache_deep=every)
        stages[every] = Predict(Denoise(whole, sampling, shallow), sampling, told, 0, "cpu")
    flow, trust = torch.full((1, 2, height, width), 3.0), torch.ones(1, 1, height, width)
    source = torch.randn_like(inputs["x"])
    times = {every: [] for every in EVERY}
    for turn in range(rounds + 1):
        for every, stage in stages.items():
            began = time.perf_counter()
            for n in range(FRAMES):
                at = Stamp(turn * FRAMES + n, 0, discontinuity=turn == 0 and n == 0)
                stage(Latent(at, source), Frame(at), Motion(at, flow, trust))
            if turn:  # the first warms up
                times[every].append((time.perf_counter() - began) * 1000 / FRAMES)
    return {
        "layers": layers,
        "ms_a_frame": {every: round(statistics.median(each), 1) for every, each in times.items()},
        "least_ms": {every: round(min(each), 1) for every, each in times.items()},
    }


if __name__ == "__main__":
    main()
