"""How does warpfuse compare with the stream batch of StreamDiffusion, with the same networks and the same backend?

The peer is our own re-implementation of its algorithm (bench/peers/stream_batch.py), not StreamDiffusion. Both
alternate. warpfuse runs in three ways: without fusion (as the peer), with flow and fusion, and without fusion as a
stream batch. Pictures go from host memory to host memory, without video files.

    python bench/bench_peer.py [CLIP] [--bundle B] [--size WxH] [--steps K ...] [--frames N] [--rounds N] [--device D]
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from peers.stream_batch import StreamBatchPeer

from warpfuse.benchmark.figure import Figure
from warpfuse.benchmark.ways import WARM_UP, host_to_host, pictures_of
from warpfuse.commands.demo import CLIP
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import prepare_source, usable_cores

WAYS: dict[str, dict[str, Any]] = {
    "warpfuse": {"fusion": 0},
    "warpfuse, stream": {"fusion": 0, "stages": {"predict": {"stream": True}}},
    "warpfuse, flow and fusion": {"fusion": 0.8, "stages": {"predict": {"stream": True}}},
}


def peer_fps(keys: dict[str, Any], frames: int) -> float:
    """Frames a second of the peer."""
    config = validate({**keys, "fusion": 0, "stages": {"predict": {"stream": True}}})
    _, context = prepare_source(config)
    pictures = [Image.fromarray(raw.rgb) for raw in pictures_of(config, context.size)]
    torch.set_num_threads(context.engines.threads)  # it is one thread; the networks and its tensors have all cores
    peer = StreamBatchPeer(context)
    try:
        for i in range(WARM_UP):
            peer(pictures[i % len(pictures)])
        begun = time.perf_counter()
        for i in range(frames):
            peer(pictures[i % len(pictures)])
        return frames / (time.perf_counter() - begun)
    finally:
        peer.close()
        context.close()
        torch.set_num_threads(1)


def warpfuse_fps(keys: dict[str, Any], frames: int) -> float:
    """Frames a second of the graph."""
    config = validate(keys)
    _, context = prepare_source(config)
    figure = Figure("host to host", 0.0)
    host_to_host(context, pictures_of(config, context.size), figure, frames + WARM_UP)
    return figure.fps


def main() -> None:
    """Take turns; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=str(CLIP))
    parser.add_argument("--bundle", default="embedded")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    keys = {"source": options.clip, "sinks": ["null:"], "bundle": options.bundle, "size": options.size}
    keys |= {"device": options.device, "backend": options.backend}
    result: dict[str, Any] = {"bench": "peer", "cores": usable_cores(), "size": options.size, "steps": {}}
    for steps in options.steps:
        rates: dict[str, list[float]] = {name: [] for name in ("peer", *WAYS)}
        for _ in range(options.rounds):
            rates["peer"].append(peer_fps({**keys, "steps": steps}, options.frames))
            for name, way in WAYS.items():
                rates[name].append(warpfuse_fps({**keys, "steps": steps, **way}, options.frames))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        for name, fps in medians.items():
            print(f"{steps} step(s)  {name:<28}{fps:8.2f} fps  x{fps / medians['peer']:.2f}", flush=True)
        result["steps"][steps] = {
            name: {"fps": round(fps, 2), "ratio": round(fps / medians["peer"], 3)} for name, fps in medians.items()
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
