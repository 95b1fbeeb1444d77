"""Make the pictures of the README: every style on one frame of a clip, and a short film, flickering beside steady.

    python docs/make_pictures.py [CLIP] [--frame N] [--size WxH] [--styles docs/styles.png]
                                 [--film docs/steady.webp]

Every style runs over the frames before the one shown, as a viewer of the video would have seen them.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

import warpfuse
from warpfuse.demo import CLIP
from warpfuse.engine import load_bundle
from warpfuse.graph.plan.config import parse_size
from warpfuse.stages.sources import open_source

COLUMNS = 4
HERE = Path(__file__).parent
Rgb = np.ndarray  # uint8 [h,w,3]


def main() -> None:
    """Write the sheets and the film."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=str(CLIP))
    parser.add_argument("--bundle", default="embedded")
    parser.add_argument("--frame", type=int, default=60, help="the one the sheet shows")
    parser.add_argument("--run-up", type=int, default=12, help="frames before it")
    parser.add_argument("--size", type=parse_size, default=(384, 216))
    parser.add_argument("--styles", type=Path, default=HERE / "styles.png")
    parser.add_argument("--film", type=Path, default=HERE / "steady.webp")
    parser.add_argument("--film-style", help="the bundle's default if not given")
    parser.add_argument("--film-frames", type=int, default=36)
    parser.add_argument("--film-quality", type=int, default=60, help="of the WebP, 1 to 100")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    frames = pictures(options.clip, options.size, options.frame + 1)[-options.run_up - 1 :]
    panels = [labelled(frames[-1], "source")]
    panels += [labelled(restyled(frames, options.bundle, name)[-1], name) for name in bundle.about.styles]
    cv2.imwrite(str(options.styles), sheet(panels)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(options.styles)
    frames = pictures(options.clip, options.size, options.film_frames)
    style, weights = options.film_style or bundle.about.default_style, {"alone": 0.0, "steady": 0.8}
    runs = {name: restyled(frames, options.bundle, style, fusion=weight) for name, weight in weights.items()}
    shown = [np.hstack([labelled(run[i], name) for name, run in runs.items()]) for i in range(len(frames))]
    write_film(options.film, shown, open_source(options.clip).info.fps, options.film_quality)
    print(options.film, options.film.stat().st_size)


def pictures(clip: str, size: tuple[int, int], count: int) -> list[Rgb]:
    """The first `count` frames of the clip."""
    source = open_source(clip, size=size, frames=count)
    try:
        return [frame.rgb for frame in iter(source.read, None)]
    finally:
        source.close()


def restyled(frames: list[Rgb], bundle: str, style: str, **keys: float) -> list[Rgb]:
    """Every frame through a pipeline of its own."""
    h, w = frames[0].shape[:2]
    with warpfuse.Pipeline(bundle=bundle, prompt=style, size=(w, h), **keys) as pipeline:
        out = [pipeline.push(frame) for frame in frames] + pipeline.drain()
    return [picture for picture in out if picture is not None]


def sheet(panels: list[Rgb]) -> Rgb:
    """Rows of COLUMNS panels."""
    panels = panels + [np.zeros_like(panels[0])] * (-len(panels) % COLUMNS)
    return np.vstack([np.hstack(panels[i : i + COLUMNS]) for i in range(0, len(panels), COLUMNS)])


def labelled(rgb: Rgb, text: str) -> Rgb:
    """A copy with its name in the corner."""
    panel = rgb.copy()
    cv2.rectangle(panel, (0, 0), (10 + 9 * len(text), 22), (16, 16, 16), -1)
    cv2.putText(panel, text, (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (240, 240, 240), 1, cv2.LINE_AA)
    return panel


def write_film(path: Path, frames: list[Rgb], fps: float, quality: int) -> None:
    """An endless animated WebP."""
    film = cv2.Animation()
    film.frames = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    film.durations = np.full(len(frames), round(1000 / fps), np.int32)
    if not cv2.imwriteanimation(str(path), film, [cv2.IMWRITE_WEBP_QUALITY, quality]):
        raise OSError(f"{path}: OpenCV wrote no animation. Its build lacks WebP; install opencv-python-headless")


if __name__ == "__main__":
    main()
