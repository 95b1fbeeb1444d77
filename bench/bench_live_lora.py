"""What do live LoRAs cost? The UNet with LoRAs merged is compared with LoRAs as branches.

    python bench/bench_live_lora.py [--rank 16] [--loras 1] [--size 256x256] [--calls 30]

It is a random UNet a quarter as wide as SD 1.5's, with LoRAs on every attention projection, as in most published ones.
The weights of the branches as a share of those of their layers are a lower bound of the added work.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from warpfuse.engine.bundle_parts import LORA_INPUT
from warpfuse.export.diffusion import published
from warpfuse.export.diffusion.lora.forms import LowRank
from warpfuse.export.diffusion.lora.live import LiveNetwork, Scales, add_branch
from warpfuse.export.diffusion.networks import UNet
from warpfuse.export.diffusion.written import write_network

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--loras", type=int, default=1)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--calls", type=int, default=30)
    options = parser.parse_args()
    width, height = (int(n) // 8 for n in options.size.split("x"))
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    config = {**published.UNETS["sd15"], "block_out_channels": [80, 160, 320, 320], "norm_num_groups": 16}
    config |= {"cross_attention_dim": 192}
    network = UNet2DConditionModel(**config).eval().requires_grad_(False)
    layers = [layer for name, layer in network.named_modules() if name.endswith(PROJECTIONS)]
    inputs = {
        "x": torch.randn(1, 4, height, width),
        "timestep": torch.tensor([999.0]),
        "context": torch.randn(1, 77, 192),
    }
    with tempfile.TemporaryDirectory() as folder:
        merged = write_network(Path(folder) / "merged.onnx", UNet(network), inputs, ["output"], "single").path
        scales = Scales()
        for layer in layers:
            parts = [(column, _change(layer, options.rank)) for column in range(options.loras)]
            add_branch(layer, parts, scales)
        told = {**inputs, LORA_INPUT: torch.ones(1, options.loras)}
        live = write_network(
            Path(folder) / "live.onnx", LiveNetwork(UNet(network), scales), told, ["output"], "single"
        ).path
        nodes = [len(onnx.load(path).graph.node) for path in (merged, live)]
        times = _alternately([(merged, inputs), (live, told)], options.calls)
    branch_parameters = sum(sum(b.numel() for b in layer.get_submodule("lora").parameters()) for layer in layers)
    report = {
        "layers": len(layers),
        "rank": options.rank,
        "loras": options.loras,
        "merged_ms": round(statistics.median(times[0]), 2),
        "live_ms": round(statistics.median(times[1]), 2),
        "merged_ms_p99": round(float(np.percentile(times[0], 99)), 2),
        "live_ms_p99": round(float(np.percentile(times[1], 99)), 2),
        "merged_nodes": nodes[0],
        "live_nodes": nodes[1],
        "share_of_weights_of_these_layers": round(branch_parameters / sum(one.weight.numel() for one in layers), 4),
    }
    print(json.dumps(report))


def _change(layer: nn.Linear, rank: int) -> LowRank:
    return LowRank(layer, False, torch.randn(rank, layer.in_features), 0.01 * torch.randn(layer.out_features, rank))


def _alternately(networks: list[tuple[Path, dict[str, torch.Tensor]]], calls: int) -> list[list[float]]:
    """Milliseconds of every call, alternating, so that slow moments affect both."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    sessions = [
        (onnxruntime.InferenceSession(path, options), {name: tensor.numpy() for name, tensor in feed.items()})
        for path, feed in networks
    ]
    times: list[list[float]] = [[] for _ in sessions]
    for call in range(calls + 3):
        for (session, feed), found in zip(sessions, times, strict=True):
            begun = time.perf_counter()
            session.run(None, feed)
            if call >= 3:
                found.append((time.perf_counter() - begun) * 1000)
    return times


if __name__ == "__main__":
    main()
