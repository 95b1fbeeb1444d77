"""Make the pictures of the README: every style on one frame of a clip, and a film of source, flickering and steady.

    python docs/make_pictures.py [CLIP] [--region X,Y,W,H] [--size WxH] [--frame N] [--styles docs/styles.png]
                                 [--film-from N] [--film docs/steady.webp]

Every style runs over the frames before those shown, as a viewer of the video would have seen them.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import warpfuse
from warpfuse.commands.demo import CLIP
from warpfuse.engine import load_bundle
from warpfuse.graph.plan.values import parse_size
from warpfuse.stages.sources import open_source

COLUMNS = 5
RABBIT = 40, 0, 400, 360  # x, y, width and height, pixels: the part of the shipped clip in which the rabbit moves
HERE = Path(__file__).parent
Rgb = np.ndarray  # uint8 [h,w,3]


def main() -> None:
    """Write the sheets and the film."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=str(CLIP))
    parser.add_argument("--bundle", default="embedded")
    parser.add_argument("--frame", type=int, default=60, help="the one the sheet shows")
    parser.add_argument("--run-up", type=int, default=12, help="frames before it")
    parser.add_argument("--region", type=parse_region, metavar="X,Y,W,H", help="of every frame, pixels")
    parser.add_argument("--size", type=parse_size, default=(320, 288), help="of a panel")
    parser.add_argument("--styles", type=Path, default=HERE / "styles.png")
    parser.add_argument("--film", type=Path, default=HERE / "steady.webp")
    parser.add_argument("--film-style", help="the bundle's default if not given")
    parser.add_argument("--film-from", type=int, default=20, help="first frame of the film")
    parser.add_argument("--film-frames", type=int, default=44)
    parser.add_argument("--film-quality", type=int, default=60, help="of the WebP, 1 to 100")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    region = options.region or (RABBIT if options.clip == str(CLIP) else None)
    end = options.film_from + options.film_frames
    frames = pictures(options.clip, region, options.size, max(options.frame + 1, end))
    seen = frames[max(0, options.frame - options.run_up) : options.frame + 1]
    panels = [labelled(seen[-1], "source")]
    panels += [labelled(restyled(seen, options.bundle, name)[-1], name) for name in bundle.about.styles]
    cv2.imwrite(str(options.styles), sheet(panels)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(options.styles)
    first = max(0, options.film_from - options.run_up)
    style = options.film_style or bundle.about.default_style
    runs = {"source": frames[first:end]}
    for name, weight in {"each frame alone": 0.0, "steady": 0.8}.items():
        runs[name] = restyled(frames[first:end], options.bundle, style, fusion=weight)
    film = [np.hstack([labelled(run[i], name) for name, run in runs.items()]) for i in range(end - first)]
    fps = open_source(options.clip).info.fps
    write_film(options.film, film[options.film_from - first :], fps, options.film_quality)
    print(options.film, options.film.stat().st_size)


def parse_region(text: str) -> tuple[int, int, int, int]:
    """X,Y,W,H."""
    x, y, w, h = (int(part) for part in text.split(","))
    return x, y, w, h


def pictures(clip: str, region: tuple[int, int, int, int] | None, size: tuple[int, int], count: int) -> list[Rgb]:
    """The first `count` frames of the clip: the region of each, at the size."""
    source = open_source(clip, frames=count)
    try:
        whole = [frame.rgb for frame in iter(source.read, None)]
    finally:
        source.close()
    x, y, w, h = region or (0, 0, whole[0].shape[1], whole[0].shape[0])
    return [cv2.resize(rgb[y : y + h, x : x + w], size, interpolation=cv2.INTER_AREA) for rgb in whole]


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
    """An endless animated WebP. Each frame is whole: blocks of differences pile up where little moves."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    duration_ms = round(1000 / fps)
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=duration_ms,
        loop=0,
        quality=quality,
        method=6,
        kmin=0,
        kmax=1,
    )


if __name__ == "__main__":
    main()
