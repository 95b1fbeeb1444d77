"""Make the picture of docs/keyframe.md: a frame, what was painted over it, and later frames that have it on.

python docs/make_keyframe_picture.py [--size WxH] [--prompt STYLE] [--out docs/keyframe.jpg]

The painter is a few lines of NumPy here: a jersey for the rabbit of the demonstration's clip, the rest transparent.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import warpfuse
from warpfuse.commands.demo import CLIP
from warpfuse.graph.plan.values import parse_size
from warpfuse.stages.sources import open_source

HERE = Path(__file__).parent
PAINTED, SHOWN = 64, (76, 100, 124)
BODY = (0.235, 0.32, 0.485, 0.84)
"""Left, top, right and bottom of the rabbit's body in the frame that is painted, shares of the picture."""


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=(384, 216))
    parser.add_argument("--prompt", default="watercolour")
    parser.add_argument("--out", type=Path, default=HERE / "keyframe.jpg")
    options = parser.parse_args()
    source = open_source(str(CLIP), size=options.size, frames=max(SHOWN) + 1)
    frames = [frame.rgb for frame in iter(source.read, None)][PAINTED:]
    source.close()
    painted = jersey(frames[0])
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "key.png"
        Image.fromarray(painted).save(picture)
        stages = {"anchor": {"picture": str(picture), "at": 0}}
        with warpfuse.Pipeline(size=options.size, prompt=options.prompt, stages=stages) as pipeline:
            styled = [pipeline.push(frame) for frame in frames]
    cover = painted[..., 3:] / 255
    on_gray = (painted[..., :3] * cover + 128 * (1 - cover)).astype(np.uint8)
    later = [np.vstack([frames[n - PAINTED], styled[n - PAINTED]]) for n in SHOWN]
    sheet = np.hstack([np.vstack([frames[0], on_gray]), *later])
    cv2.imwrite(str(options.out), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(options.out, options.out.stat().st_size)


def jersey(frame: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 4]: stripes where the body is gray, shaded as it is; transparent elsewhere."""
    h, w = frame.shape[:2]
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    gray = ((hsv[..., 1] < 70) & (hsv[..., 2] > 70)).astype(np.uint8)
    left, top, right, bottom = (round(share * side) for share, side in zip(BODY, (w, h, w, h), strict=True))
    inside = np.zeros_like(gray)
    inside[top:bottom, left:right] = gray[top:bottom, left:right]
    inside = cv2.morphologyEx(inside, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(inside)
    body = labels == 1 + np.argmax(boxes[1:, cv2.CC_STAT_AREA])
    y, x = np.mgrid[0:h, 0:w]
    stripes = (y + 6 * np.sin(x / 14)) // 12 % 2
    colours = np.array([[214, 40, 57], [250, 232, 190]])[stripes.astype(int)]
    shade = np.clip(hsv[..., 2:] / 190, 0.35, 1.1)
    rgb = np.clip(colours * shade, 0, 255).astype(np.uint8)
    return np.dstack([rgb, cv2.GaussianBlur(255 * body.astype(np.uint8), (0, 0), 0.8)])


if __name__ == "__main__":
    main()
