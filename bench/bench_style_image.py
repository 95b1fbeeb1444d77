"""What does a picture as a prompt cost (IP-Adapter), compared with the operations that it adds?

A UNet of SD 1.5's architecture, a fifth as wide, with random weights: without images, with a plain adapter (4 tokens),
two of them, a plus (16) and a full one (257). ONNX Runtime on one thread in single precision, a row a call, calls by
turns; processor time, which other work disturbs less than the clock. `off` has every scale 0 and the same operations.
Below: operations of the published image encoder (ViT-H), once a picture, counted and not run.

    python bench/bench_style_image.py [--size 384x256] [--rounds 15]
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
import transformers
from bench_attention import by_turns, made, one_thread, operations, tell

from warpfuse.engine.bundle_parts import StyleImage
from warpfuse.export.diffusion.image_prompt import Images, cross_attention_layers, pictured
from warpfuse.export.diffusion.networks import UNet
from warpfuse.export.diffusion.written import write_network

WAYS: dict[str, tuple[int, ...]] = {
    "none": (), "plain": (4,), "two plain": (4, 4), "plus": (16,), "full": (257,),
}  # fmt: skip
VIT_H = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14, "projection_dim": 1024,
}  # fmt: skip


def drawn(like: torch.Tensor) -> torch.Tensor:
    """A random weight of the same shape."""
    return torch.randn_like(like) * like.shape[1] ** -0.5


def shown(unet: Any, counts: tuple[int, ...]) -> Images:
    """Random adapters with these numbers of tokens."""
    width = unet.config.cross_attention_dim
    about = [StyleImage(name=f"i{n}", network=0, size=224, tokens=t, width=width) for n, t in enumerate(counts)]
    layers = [unet.get_submodule(name) for name in cross_attention_layers(unet)]
    keys = [tuple((drawn(one.to_k.weight), drawn(one.to_v.weight)) for one in layers) for _ in counts]
    return Images(tuple(about), (), tuple(keys))


def of_the_encoder() -> int:
    """Operations of ViT-H for one picture, on tensors without numbers."""
    with torch.device("meta"):
        network: Any = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VIT_H)).eval()
        return operations(network, {"rgb": torch.empty(1, 3, 224, 224)})


def main() -> None:
    """Run everything; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="384x256")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    width, height = (int(side) for side in options.size.split("x"))
    alone = one_thread()
    calls: dict[str, Any] = {}
    flops: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, counts in WAYS.items():
            unet, inputs = made((width, height))
            images = shown(unet, counts)
            tokens = {f"tokens_{n}": torch.randn(1, t, unet.config.cross_attention_dim) for n, t in enumerate(counts)}
            inputs |= images.typical(tokens, 1)
            network = pictured(unet, UNet(unet), images, xl=False)
            flops[name] = operations(network, inputs)
            path = Path(folder) / f"{len(calls)}.onnx"
            write_network(path, network, inputs, ["output"], "single")
            feed = {key: value.numpy() for key, value in inputs.items()}
            session = ort.InferenceSession(path, alone)
            calls[name] = (session, feed)
            if counts:
                off = {key: 0 * value if key == "image_scale" else value for key, value in feed.items()}
                calls[f"{name}, off"] = (session, off)
        times = by_turns(calls, options.rounds)
    rows = tell("images", times, flops, digits=4)
    once = round(of_the_encoder() / 1e9, 1)
    print(f"image encoder, once a picture: {once} GFLOP")
    print(json.dumps({"bench": "style_image", "size": options.size, "rows": rows, "encoder_gflop": once}))


if __name__ == "__main__":
    main()
