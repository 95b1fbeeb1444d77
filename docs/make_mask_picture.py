"""Make the picture of docs/mask.md: a picture, the mask of the person in it, the person restyled, and the rest.

python docs/make_mask_picture.py PICTURE [--size WxH] [--prompt STYLE] [--out docs/mask.jpg]
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

import warpfuse
from warpfuse.engine.bundle import load_map_bundle
from warpfuse.engine.open import open_engine
from warpfuse.graph.plan.values import parse_size
from warpfuse.stages.controls.map_network import MapNetwork

HERE = Path(__file__).parent


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", type=parse_size, default=(320, 320))
    parser.add_argument("--prompt", default="ink")
    parser.add_argument("--out", type=Path, default=HERE / "mask.jpg")
    options = parser.parse_args()
    picture = cv2.cvtColor(cv2.imread(str(options.picture)), cv2.COLOR_BGR2RGB)
    picture = np.asarray(cv2.resize(picture, options.size, interpolation=cv2.INTER_AREA), np.uint8)
    panels = [picture, mask_of(picture), *restyled(picture, options.size, options.prompt)]
    cv2.imwrite(str(options.out), np.hstack(panels)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(options.out, options.out.stat().st_size)


def mask_of(picture: np.ndarray) -> np.ndarray:
    """What the network of the bundle finds, uint8 [h, w, 3]: white is the person."""
    network = MapNetwork(open_engine(load_map_bundle("person").network()))
    rgb = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None] / 255
    found = network(rgb)[0, 0].numpy()
    return np.rint(255 * found[..., None].repeat(3, 2)).astype(np.uint8)


def restyled(picture: np.ndarray, size: tuple[int, int], prompt: str) -> list[np.ndarray]:
    """The person in the style, and everything else."""
    with warpfuse.Pipeline(size=size, mask="person", prompt=prompt, fusion=0) as pipeline:
        person = pipeline.push(picture)
        pipeline.update(mask={"invert": True})
        rest = pipeline.push(picture)
    return [person, rest]


if __name__ == "__main__":
    main()
