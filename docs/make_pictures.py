"""Make the pictures of the README: the source and every style of a bundle on one frame of a clip, steady.

    python docs/make_pictures.py [CLIP] [--frame N] [--size WxH] [--out docs/styles.png]

Every style runs over the frames before the one shown, as a viewer of the video would have seen them.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

import warpfuse
from warpfuse.demo import CLIP
from warpfuse.engine import load_bundle
from warpfuse.graph.config import parse_size
from warpfuse.stages.sources import open_source

COLUMNS = 5


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=str(CLIP))
    parser.add_argument("--bundle", default="embedded")
    parser.add_argument("--frame", type=int, default=60)
    parser.add_argument("--run-up", type=int, default=12)
    parser.add_argument("--size", type=parse_size, default=(384, 216))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("styles.png"))
    options = parser.parse_args()
    source = open_source(options.clip, size=options.size, frames=options.frame + 1)
    frames = [frame.rgb for frame in iter(source.read, None)][-options.run_up - 1 :]
    source.close()
    panels = [_labelled(frames[-1], "source")]
    for style in load_bundle(options.bundle).about.styles:
        with warpfuse.Pipeline(bundle=options.bundle, prompt=style, size=options.size) as pipeline:
            for frame in frames:
                styled = pipeline.push(frame)
        panels.append(_labelled(styled, style))
    blank = np.zeros_like(panels[0])
    panels += [blank] * (-len(panels) % COLUMNS)
    rows = [np.hstack(panels[i : i + COLUMNS]) for i in range(0, len(panels), COLUMNS)]
    cv2.imwrite(str(options.out), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(options.out)


def _labelled(rgb: np.ndarray, text: str) -> np.ndarray:
    panel = rgb.copy()
    cv2.rectangle(panel, (0, 0), (10 + 9 * len(text), 22), (16, 16, 16), -1)
    cv2.putText(panel, text, (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (240, 240, 240), 1, cv2.LINE_AA)
    return panel


if __name__ == "__main__":
    main()
