"""Do all backends compute the same? SD-Turbo's architecture with random weights, against ONNX Runtime on a CPU.

    python bench/card_parity.py [--device D] [--size WxH] [--full]

The last line is one JSON object with, by backend and network, the largest error relative to the largest value, or the
reason why it does not run. --full uses the published widths (minutes, 13 GB of memory) instead of narrow ones.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.random_checkpoint import write_random_checkpoint

from warpfuse.engine import load_bundle, open_engine
from warpfuse.engine.cuda_streams import new_stream, on
from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.open import backend_names
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.targets import Targets

NETWORKS = ("encoder", "unet", "decoder")
ALLOWED = 0.05  # of half precision through a UNet; the exporter allows as much


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    found: dict[str, dict[str, float | str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = write_random_checkpoint(Path(folder) / "checkpoint", "sd-turbo", small=not given.full)
        request = Request(size=(width, height), steps=1, targets=Targets(("onnx", "torch")))
        bundle = load_bundle(
            str(export_checkpoint(Path(folder) / "bundle", open_checkpoint(str(source)), request).folder)
        )
        for name in NETWORKS:
            path = bundle.network(name)  # type: ignore[arg-type]
            feed, expected = reference(path)
            for backend in backend_names():
                found.setdefault(backend, {})[name] = compared(path, backend, given.device, feed, expected)
    numbers = [value for one in found.values() for value in one.values() if isinstance(value, float)]
    print(json.dumps(found))
    return 0 if numbers and max(numbers) <= ALLOWED else 1


def reference(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Random inputs of a network, and its outputs on a CPU."""
    engine = open_engine(path, "onnxruntime", "cpu")
    generator = torch.Generator().manual_seed(0)
    feed = {
        spec.name: torch.rand([n or 1 for n in spec.shape], generator=generator).to(getattr(torch, spec.dtype))
        for spec in engine.inputs
    }
    expected = {name: x.float().clone() for name, x in engine(feed).items()}
    engine.close()
    return feed, expected


def compared(
    path: Path, backend: str, device: str, feed: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> float | str:
    """The largest error of a backend, or why it does not run."""
    try:
        engine = open_engine(path, backend, device)
    except WarpfuseError as error:
        return str(error)
    with on(new_stream(device)):
        got = {name: x.float().cpu() for name, x in engine({n: x.to(device) for n, x in feed.items()}).items()}
    engine.close()
    return max(float((got[name] - x).abs().max() / x.abs().max()) for name, x in expected.items())


if __name__ == "__main__":
    sys.exit(main())
