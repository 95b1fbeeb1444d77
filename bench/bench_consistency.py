"""Which kind of fusion makes the style steady without blurring it?

Every configuration runs on every clip with the same seed, and so with the same noise for every frame. All figures
except distance and drift are ratios to the unfused run of the same clip. A blur lowers E_warp as well, so sharpness and
high-frequency energy are given too. A frozen picture has a low E_warp and a large tOF.

    e_warp      change along the motion of the source
    tof         motion that is not the source's
    sharpness   Laplacian variance
    hf          high-frequency energy
    distance    mean |difference| to the unfused run, 0..1: fusion must not remove the style
    ms          total milliseconds a frame; of little use on a busy machine
    drift       largest change of a channel's mean from frame 10 to the end, less that of the unfused run, 0..1

    python bench/bench_consistency.py CLIP [CLIP ...] [--frames N] [--long-side N] [--prompt STYLE] [--plot FILE.png]

With `--bundle` of a checkpoint that was exported with `--attention`, it compares kinds of attention, with fusion and
alone, and Rerender-A-Video as in `docs/rerender.yaml`, with its parts alone and left out. All other runs have attention
off. The size is the bundle's. Windows are ranges of levels: with fewer than eight steps some contain no step.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

import warpfuse
from warpfuse.engine.bundle import load_bundle
from warpfuse.graph.plan.raw_keys import merge, read_graph_file
from warpfuse.stages.diffusion.settings import RECIPES
from warpfuse.stages.motion.consistency import Consistency
from warpfuse.stages.sources import open_source

RECIPE = Path(__file__).parents[1] / "docs" / "rerender.yaml"
WEIGHTS = (0.5, 0.6, 0.7, 0.8, 0.9)
RATIOS = ("e_warp", "tof", "sharpness", "hf_energy")
FIGURES = (*RATIOS, "distance", "drift", "ms")


def ways() -> dict[str, dict[str, Any]]:
    """Keys of configurations, by name."""
    found: dict[str, dict[str, Any]] = {f"picture both {weight}": _fuse(weight=weight) for weight in WEIGHTS}
    for weight in (0.8,):
        for place, other in (("entry", "exit"), ("exit", "entry")):
            found[f"picture {place} {weight}"] = _fuse(weight=weight, **{other: 0})
        for reference in ("latent", "output"):
            found[f"{reference} both {weight}"] = _fuse(weight=weight, reference=reference)
            found[f"{reference} exit {weight}"] = _fuse(weight=weight, reference=reference, entry=0)
        for noise in ("slot", "fresh"):
            found[f"noise {noise} {weight}"] = _fuse(weight=weight, noise=noise)
        found[f"inner strength 0.9 {weight}"] = _fuse(weight=weight, noise="fresh", inner_strength=0.9)
        found[f"unlocked {weight}"] = _fuse(weight=weight, anchor={"entry": False, "exit": 0})
        found[f"least trust {weight}"] = {"stages": {"fuse": {"weight": weight}, "warp": {"cell_norm": None}}}
        found[f"skip 2 {weight}"] = {**_fuse(weight=weight), "pace": {"skip": 2}}
    return found


def rows() -> dict[str, dict[str, Any]]:
    """Keys for two or more steps, by name: fusion between steps, and stream batches."""
    found = {
        f"steps between {between}": _fuse(between=between) for between in ("off", "reference", "latent", "picture")
    }
    for name, fuse in {
        "last": {"entry": 0},
        "entry": {"exit": 0},
        "entry and last": {},
        "last and latent between": {"entry": 0, "between": "latent"},
        "last and picture between": {"entry": 0, "between": "picture"},
        "all": {"between": "picture"},
    }.items():
        raw = _fuse(**fuse)
        raw["stages"]["predict"] = {"stream": True}
        found[f"stream {name}"] = raw
    return found


def attentions() -> dict[str, dict[str, Any]]:
    """Keys for a bundle with attention, by name: each recipe alone, with and without flow, and with fusion."""
    alone = _fuse(weight=0.8, entry=0, exit=0)  # there is a flow, and nothing is fused
    found = {"fusion alone": _fuse(weight=0.8)}
    for name, weights in {"default": {"anchor": 1.0, "previous": 1.0}, **RECIPES}.items():
        if name != "off":
            found[f"attention {name} alone"] = merge(alone, _attend(**weights))
            found[f"attention {name} alone, not pulled"] = merge(alone, _attend(**weights, pull="off"))
            found[f"attention {name} and fusion"] = merge(_fuse(weight=0.8), _attend(**weights))
    return found


def rerenders() -> dict[str, dict[str, Any]]:
    """Keys of `docs/rerender.yaml`, by name: complete, without one of its parts, and each part alone."""
    whole = {"stages": read_graph_file(RECIPE)["stages"]}
    none = _fuse(entry=0, exit=0, between=[], adain={"weight": 0})
    stages = whole["stages"]
    parts = {
        "attention": {"stages": {"predict": stages["predict"]}},
        "adain": _fuse(adain=stages["fuse"]["adain"]),
        "shape": _fuse(between=stages["fuse"]["between"][:1]),
        "pixel": _fuse(between=stages["fuse"]["between"][1:]),
    }
    off = {
        "attention": _attend(**RECIPES["off"]),
        "adain": _fuse(adain={"weight": 0}),
        "shape": parts["pixel"],
        "pixel": parts["shape"],
        "encode twice": {"stages": {"encode": {"twice": False}}},
    }
    found = {"rerender": whole}
    found |= {f"rerender {name} alone": merge(none, keys) for name, keys in parts.items()}
    return found | {f"rerender without {name}": merge(whole, keys) for name, keys in off.items()}


def _attend(**settings: Any) -> dict[str, Any]:
    return {"stages": {"predict": {"attention": settings}}}


def _fuse(**settings: Any) -> dict[str, Any]:
    return {"stages": {"fuse": settings}}


def frames_of(clip: str, long_side: int, count: int, size: tuple[int, int] | None) -> list[np.ndarray]:
    """The first `count` pictures of a clip, at a size, or with the given long side, in multiples of 8."""
    info = open_source(clip).info
    scale = long_side / max(info.width, info.height)
    size = size or (round(info.width * scale / 8) * 8, round(info.height * scale / 8) * 8)
    source = open_source(clip, size=size, frames=count)
    pictures = [frame.rgb for frame in iter(source.read, None)]
    source.close()
    return pictures


def styled(pictures: list[np.ndarray], keys: dict[str, Any]) -> tuple[list[np.ndarray], float]:
    """The pictures restyled with these keys, and milliseconds a frame."""
    h, w = pictures[0].shape[:2]
    with warpfuse.Pipeline(size=(w, h), **keys) as pipeline:
        pipeline.push(pictures[0])
    with warpfuse.Pipeline(size=(w, h), **keys) as pipeline:
        out = [pipeline.push(pictures[0])]
        begun = time.perf_counter()
        out += [pipeline.push(picture) for picture in pictures[1:]]
        out += pipeline.drain()
        took = time.perf_counter() - begun
    return [picture for picture in out if picture is not None], took / (len(pictures) - 1) * 1000


def figures(source: list[np.ndarray], out: list[np.ndarray], alone: list[np.ndarray]) -> dict[str, float]:
    """Absolute figures of one run, and its distance and drift against the unfused one."""
    consistency = Consistency()
    for before, after in zip(source, out, strict=True):
        consistency.add(before, after)
    measured = dict(consistency.figures())
    distance = statistics.fmean(float(np.abs(a.astype(int) - b).mean()) / 255 for a, b in zip(out, alone, strict=True))
    return {**{name: float(measured[name]) for name in RATIOS}, "distance": distance, "drift": _drift(out, alone)}


def _drift(out: list[np.ndarray], alone: list[np.ndarray]) -> float:
    start = min(10, len(out) - 1)
    moved = [(run[-1].mean((0, 1)) - run[start].mean((0, 1))) / 255 for run in (out, alone)]
    return float(np.abs(moved[0] - moved[1]).max())


def plot(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Sharpness over E_warp, both as ratios: up and to the left is better."""
    side, margin = 900, 60
    canvas = np.full((side, side + 220, 3), 255, np.uint8)
    sharp = [row["sharpness"] for row in rows.values()]
    bottom, top = math.floor(10 * min(sharp)) / 10, math.ceil(10 * max(sharp)) / 10
    right = math.ceil(10 * max(row["e_warp"] for row in rows.values())) / 10

    def at(e_warp: float, sharpness: float) -> tuple[int, int]:
        inner = side - 2 * margin
        return int(margin + inner * e_warp / right), int(side - margin - inner * (sharpness - bottom) / (top - bottom))

    def text(words: str, place: tuple[int, int], size: float = 0.4, colour: tuple[int, int, int] = (0, 0, 0)) -> None:
        cv2.putText(canvas, words, place, 0, size, colour, 1, cv2.LINE_AA)

    for value in np.arange(bottom, top + 0.01, 0.1):
        cv2.line(canvas, at(0, value), at(right, value), (225, 225, 225), 1)
        text(f"{value:.1f}", (25, at(0, value)[1] + 4))
    for value in np.arange(0, right + 0.01, 0.1):
        cv2.line(canvas, at(value, bottom), at(value, top), (225, 225, 225), 1)
        text(f"{value:.1f}", (at(value, bottom)[0] - 10, side - 40))
    text("E_warp, ratio to unfused", (side // 2 - 90, side - 15), 0.5)
    text("sharpness, ratio to unfused", (margin, 30), 0.5)
    colours = {"picture": (180, 90, 0), "latent": (0, 0, 200), "output": (0, 130, 0), "unfused": (0, 0, 0)}
    taken: list[tuple[int, int]] = []
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["sharpness"]):
        x, y = at(row["e_warp"], row["sharpness"])
        colour = colours.get(name.split()[0], (150, 0, 150))
        cv2.circle(canvas, (x, y), 5, colour, -1, cv2.LINE_AA)
        label = y + 4
        while any(abs(label - other) < 13 and abs(x - place) < 160 for place, other in taken):
            label += 13  # below the one that is there
        taken.append((x, label))
        text(name, (x + 8, label), 0.38, colour)
    cv2.imwrite(str(path), canvas)


def main() -> None:
    """Run everything; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--long-side", type=int, default=320)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--steps", type=int, default=1, help="from 2 on, the rows of a stream batch are compared too")
    parser.add_argument("--bundle", default="embedded")
    parser.add_argument("--ways", nargs="*", help="only those whose name contains one of these")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    about = load_bundle(options.bundle).about
    offered = (
        {**attentions(), **rerenders()} if about.attention is not None else ways() if options.steps == 1 else rows()
    )
    chosen = {n: keys for n, keys in offered.items() if not options.ways or any(part in n for part in options.ways)}
    common = {"prompt": options.prompt, "steps": options.steps, "bundle": options.bundle, **_attend(**RECIPES["off"])}
    found: dict[str, list[dict[str, float]]] = {}
    for clip in options.clips:
        source = frames_of(clip, options.long_side, options.frames, about.size)
        alone, took = styled(source, merge(common, _fuse(weight=0.0)))
        base = figures(source, alone, alone)
        found.setdefault("unfused", []).append(dict.fromkeys(RATIOS, 1.0) | {"distance": 0.0, "drift": 0.0, "ms": took})
        for name, keys in chosen.items():
            out, took = styled(source, merge(common, keys))
            one = figures(source, out, alone)
            ratios = {ratio: one[ratio] / base[ratio] for ratio in RATIOS}
            found.setdefault(name, []).append(one | ratios | {"ms": took})
            print(f"{Path(clip).name}  {name:<40}", *(f"{f} {found[name][-1][f]:.3f}" for f in FIGURES), flush=True)
    means = {n: {f: round(statistics.fmean(row[f] for row in many), 4) for f in FIGURES} for n, many in found.items()}
    table = Table("mean of the clips", *FIGURES, box=None)
    for name, row in means.items():
        table.add_row(name, *(f"{row[figure]:.3f}" for figure in FIGURES))
    Console().print(table)
    if options.plot:
        plot(means, options.plot)
    clips = [Path(clip).name for clip in options.clips]
    print(json.dumps({"bench": "consistency", "clips": clips, "frames": options.frames, "ways": means}))


if __name__ == "__main__":
    main()
