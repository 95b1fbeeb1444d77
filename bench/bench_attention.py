"""What do tokens of earlier frames cost, compared with the operations that they add?

A UNet of SD 1.5's architecture, a fifth as wide, with random weights, without attention to earlier frames and with
each reach of it. ONNX Runtime on one thread in single precision, a row a call, calls by turns; processor time, which
other work disturbs less than the clock. Predicted is the share of operations that the references add
(torch.utils.flop_counter). `off` has all weights 0 and the same operations. The cost above the prediction is that of
the inputs, the outputs and the mask.

    python bench/bench_attention.py [--size 384x256] [--rounds 15] [--references 2]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import onnxruntime as ort
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from warpfuse.export.diffusion import published
from warpfuse.export.diffusion.attention import (
    REACHES,
    RememberingUNet,
    attach_references,
    parse_reach,
    typical_references,
)
from warpfuse.export.diffusion.networks import UNet
from warpfuse.export.diffusion.written import write_network

Call = tuple[ort.InferenceSession, dict[str, Any]]
WIDTHS, HEADS = (64, 128, 256, 256), 2  # of 32, 64 and 128 numbers; those of SD 1.5 have 40, 80 and 160


def made(size: tuple[int, int]) -> tuple[Any, dict[str, Tensor]]:
    """A UNet and its inputs."""
    torch.manual_seed(0)
    narrow = {"block_out_channels": WIDTHS, "attention_head_dim": HEADS, "cross_attention_dim": 256}
    config = {**published.UNETS["sd15"], **narrow}
    unet: Any = diffusers.UNet2DConditionModel(**config).eval()
    x = torch.randn(1, 4, size[1] // 8, size[0] // 8)
    return unet, {"x": x, "timestep": torch.tensor([601.0]), "context": torch.randn(1, 77, 256)}


def operations(network: nn.Module, inputs: dict[str, Tensor]) -> int:
    """Operations of a call; a multiplication with its addition counts as two."""
    # What torch runs on a CPU for attention is not counted; the products it stands for are.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs.values())
    return int(counter.get_total_flops())


def written(folder: Path, reach: str, size: tuple[int, int], references: int) -> tuple[Path, dict[str, Tensor], int]:
    """The network on disk, its feed, and its operations."""
    unet, inputs = made(size)
    network: nn.Module = UNet(unet)
    outputs = ["output"]
    if reach != "none":
        chosen = parse_reach(reach, references)
        assert chosen is not None
        remembering = RememberingUNet(network, attach_references(unet, chosen, network, inputs))
        inputs |= typical_references(remembering, inputs, references, torch.float32)
        network, outputs = remembering, ["output", "kept"]
    path = folder / f"{reach.replace('+', '_plus')}.onnx"
    write_network(path, network, inputs, outputs, "single")
    return path, inputs, operations(network, inputs)


def one_thread() -> ort.SessionOptions:
    """Options of a session with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def by_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Processor time of each call in seconds, in every round after the first two."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, (session, feed) in calls.items():
            begun = time.process_time()
            session.run(None, feed)
            if number >= 2:
                times[name].append(time.process_time() - begun)
    return times


def tell(
    title: str,
    times: Mapping[str, Sequence[float]],
    flops: Mapping[str, float],
    digits: int = 3,
    kept: Mapping[str, float] | None = None,
) -> dict[str, dict[str, float]]:
    """Print the calls compared with "none". Returns the figures of each.

    times  seconds of each call; "NAME, off" has the operations of NAME
    kept   MB of tokens a row, by NAME
    """
    columns = ["GFLOP", "predicted", "ms", "of none", "least", "of none", *(["row keeps MB"] if kept else [])]
    table, rows = Table(title, *columns, box=None), {}
    base, least = statistics.median(times["none"]), min(times["none"])
    for name, found in times.items():
        way = name.removesuffix(", off")
        row = {
            "gflop": flops[way] / 1e9, "predicted": flops[way] / flops["none"],
            "ms": statistics.median(found) * 1e3, "ratio": statistics.median(found) / base,
            "least_ms": min(found) * 1e3, "least_ratio": min(found) / least,
        }  # fmt: skip
        if kept:
            row["kept_mb"] = kept[way]
        rows[name] = {key: round(value, digits) for key, value in row.items()}
        table.add_row(name, *(f"{value:.{digits}f}" for value in row.values()))
    Console().print(table)
    return rows


def main() -> None:
    """Run everything; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="384x256")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--references", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    width, height = (int(side) for side in options.size.split("x"))
    alone = one_thread()
    with tempfile.TemporaryDirectory() as folder:
        calls, flops, kept = {}, {}, {}
        for reach in ("none", *REACHES):
            path, inputs, flops[reach] = written(Path(folder), reach, (width, height), options.references)
            session = ort.InferenceSession(path, alone)
            feed = {name: value.numpy() for name, value in inputs.items()}
            calls[reach] = (session, feed)
            kept[reach] = inputs["past"].shape[2] * 4 / 1e6 if "past" in inputs else 0.0
            if reach != "none":
                off = {**feed, "past_weight": 0 * feed["past_weight"], "own_weight": 0 * feed["own_weight"] + 1}
                calls[f"{reach}, off"] = (session, off)
        times = by_turns(calls, options.rounds)
    rows = tell("attention", times, flops, kept=kept)
    print(json.dumps({"bench": "attention", "size": options.size, "references": options.references, "rows": rows}))


if __name__ == "__main__":
    main()
