"""What do a ControlNet and a T2I-Adapter cost, compared with the operations that they add?

A UNet of SD 1.5's architecture, a fifth as wide, with random weights: alone, with one ControlNet, with two, with an
adapter, and with one of each. ONNX Runtime on one thread in single precision, a row a call, calls by turns; processor
time, which other work disturbs less than the clock. `off` has every scale 0 and the same operations. The networks that
run once a frame are listed below.

    python bench/bench_control.py [--size 384x256] [--rounds 15]
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import diffusers
import onnxruntime as ort
import torch
from bench_attention import WIDTHS, by_turns, made, one_thread, operations, tell

from warpfuse.engine.bundle_parts import Control
from warpfuse.export.diffusion.control import Controls, controlled
from warpfuse.export.diffusion.networks import UNet
from warpfuse.export.diffusion.written import write_network

Form = Literal["controlnet", "adapter"]
WAYS: dict[str, tuple[Form, ...]] = {
    "none": (),
    "one ControlNet": ("controlnet",),
    "two ControlNets": ("controlnet", "controlnet"),
    "an adapter": ("adapter",),
    "one of each": ("controlnet", "adapter"),
}


def opened(unet: Any, forms: Sequence[Form]) -> Controls:
    """Random controls for the UNet, whose zero convolutions are filled."""
    about, networks = [], []
    for number, form in enumerate(forms):
        about.append(Control(name=f"c{number}", form=form))
        if form == "controlnet":
            net: Any = diffusers.ControlNetModel.from_unet(unet, load_weights_from_unet=False)
        else:
            net = diffusers.T2IAdapter(3, list(WIDTHS), 2, 8, "full_adapter")
        for parameter in net.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, 0, 0.1)
        networks.append(net.eval())
    return Controls(tuple(about), tuple(networks))


def main() -> None:
    """Run everything; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="384x256")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    width, height = size = tuple(int(side) for side in options.size.split("x"))
    alone = one_thread()
    calls: dict[str, Any] = {}
    flops: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, forms in WAYS.items():
            unet, inputs = made((width, height))
            controls = opened(unet, forms)
            picture, given = {"rgb": torch.rand(1, 3, height, width)}, []
            for form, (output, encoder) in zip(forms, controls.encoders(torch.float32), strict=True):
                with torch.no_grad():
                    given.append(encoder(picture["rgb"]))
                path = Path(folder) / f"{form}.onnx"
                if f"map of: {form}" not in calls:
                    write_network(path, encoder, picture, [output], "single")
                    calls[f"map of: {form}"] = (ort.InferenceSession(path, alone), {"rgb": picture["rgb"].numpy()})
                    flops[f"map of: {form}"] = operations(encoder, picture)
            inputs |= controls.typical(given, 1)
            network = controlled(UNet(unet), controls, size)
            flops[name] = operations(network, inputs)
            path = Path(folder) / f"{len(calls)}.onnx"
            write_network(path, network, inputs, ["output"], "single")
            feed = {key: value.numpy() for key, value in inputs.items()}
            session = ort.InferenceSession(path, alone)
            calls[name] = (session, feed)
            if forms:
                off = {key: 0 * value if key.endswith("_scale") else value for key, value in feed.items()}
                calls[f"{name}, off"] = (session, off)
        times = by_turns(calls, options.rounds)
    maps_last = dict(sorted(times.items(), key=lambda item: item[0].startswith("map of")))
    rows = tell("controls", maps_last, flops)
    print(json.dumps({"bench": "control", "size": options.size, "rows": rows}))


if __name__ == "__main__":
    main()
