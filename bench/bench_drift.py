"""Does a picture drift if it is fed back for a thousand frames?

A clip is played forward and backward repeatedly, so every frame recurs with the same source. Any change between two
occurrences is drift. Measured are the mean and standard deviation of each channel, and the sharpness, as ratios to the
first occurrence after frame 10. With --set fusion=0 all ratios are 1.

    python bench/bench_drift.py CLIP [CLIP ...] [--frames N] [--set KEY=VALUE ...]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_consistency import frames_of

import warpfuse
from warpfuse.graph.plan.raw_keys import set_key

START = 10


def seen(picture: np.ndarray) -> list[float]:
    """Mean and standard deviation of each channel, and the sharpness."""
    flat = picture.reshape(-1, 3) / 255
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return [*flat.mean(0), *flat.std(0), float(cv2.Laplacian(gray, cv2.CV_32F).var())]


def drift(loop: list[np.ndarray], frames: int, keys: dict[str, Any]) -> dict[str, float]:
    """Largest |ratio - 1| over all occurrences of the start frame, relative to the first."""
    h, w = loop[0].shape[:2]
    with warpfuse.Pipeline(size=(w, h), **keys) as pipeline:
        rows = [seen(pipeline.push(loop[i % len(loop)])) for i in range(frames)]
    visits = np.array(rows[START :: len(loop)])
    moved = np.abs(visits / visits[0] - 1).max(axis=0)
    return {"mean": moved[:3].max(), "std": moved[3:6].max(), "sharpness": moved[6], "visits": len(visits)}


def main() -> None:
    """Run everything; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--long-side", type=int, default=256)
    parser.add_argument("--set", action="append", default=[], dest="keys")
    options = parser.parse_args()
    keys: dict[str, Any] = {}
    for assignment in options.keys:
        set_key(keys, assignment)
    found = {}
    for clip in options.clips:
        there = frames_of(clip, options.long_side, 40, None)
        found[Path(clip).name] = one = drift(there + there[-2:0:-1], options.frames, keys)
        print(f"{Path(clip).name}:", *(f"{name} {value:.4f}" for name, value in one.items()), flush=True)
    print(json.dumps({"bench": "drift", "frames": options.frames, "keys": keys, "clips": found}))


if __name__ == "__main__":
    main()
