"""Law: what is transparent shows the background, never the colour that lies hidden there."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.endpoints import endpoints_of
from warpfuse.stages.sources import open_source
from warpfuse.stages.stage import VideoInfo

BLACK, GREEN = (0, 0, 0), (0, 255, 0)
WIDTH, HEIGHT = 128, 64


def picture(levels: bool = True) -> Any:
    """RGBA: red, opaque at the left, of half alpha in the middle if `levels`, and hidden at the right."""
    rgba = np.full((HEIGHT, WIDTH, 4), (220, 40, 40, 255), np.uint8)
    if levels:
        rgba[:, 48:80, 3] = 128
    rgba[:, 80:, 3] = 0
    return rgba


def on(rgba: Any, background: tuple[int, int, int]) -> Any:
    """As Pillow composes it."""
    below = Image.new("RGBA", (rgba.shape[1], rgba.shape[0]), (*background, 255))
    return np.asarray(Image.alpha_composite(below, Image.fromarray(rgba)).convert("RGB")).astype(int)


def shown(url: str, background: tuple[int, int, int], size: Any = None) -> tuple[Any, str | None]:
    source: Any = open_source(url, size=size)
    source.compose_on(background)
    frame = source.read()
    source.close()
    return frame.rgb.astype(int), source.warning


def middles(rgb: Any) -> Any:
    return rgb[HEIGHT // 2, [24, 64, 104]]


@pytest.mark.parametrize("background", [BLACK, GREEN])
@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("a.mov", "png", "rgba", {}),
        ("a.mov", "qtrle", "argb", {}),
        ("a.mov", "prores_ks", "yuva444p10le", {"profile": "4444"}),
        ("a.mkv", "ffv1", "yuva420p", {}),
        ("a.mkv", "ffv1", "gbrap10le", {}),
        ("a.webm", "libvpx-vp9", "yuva420p", {"auto-alt-ref": "0", "crf": "4", "b": "0"}),
        ("a.webm", "libvpx", "yuva420p", {"auto-alt-ref": "0", "crf": "4", "b": "4M"}),
    ],
)
def test_video_with_alpha_is_composed(
    make_clip: Callable[..., Path], name: str, codec: str, pix_fmt: str, options: dict[str, str], background: Any
):
    stored = VideoFrame.from_ndarray(picture(), format="rgba")
    clip = make_clip(name, [stored] * 3, codec, pix_fmt, options=options)
    rgb, line = shown(str(clip), background)
    assert np.abs(middles(rgb) - middles(on(picture(), background))).max() <= 6
    assert line is not None
    assert "transparent" in line


@pytest.mark.parametrize("background", [BLACK, GREEN])
@pytest.mark.parametrize("name", ["a.gif", "a.apng", "a.webp", "a_01.png"])
def test_pictures_with_alpha_are_composed(tmp_path: Path, name: str, background: Any):
    rgba = picture(levels=not name.endswith("gif"))
    other = rgba.copy()
    other[:8] = 255
    first, second = Image.fromarray(rgba), Image.fromarray(other)
    several = {} if name.endswith(".png") else {"save_all": True, "append_images": [second]}
    exact = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    form = "PNG" if name.endswith("apng") else None
    first.save(tmp_path / name, format=form, **several, **exact)
    url = str(tmp_path / name)
    rgb, line = shown(url.replace("_01", "_%02d"), background)
    assert np.abs(middles(rgb) - middles(on(rgba, background))).max() <= 2
    assert line is not None
    assert "transparent" in line


@pytest.mark.parametrize("pix_fmt", ["rgba", "gbrap10le", "yuva444p"])
def test_alpha_that_hides_nothing_changes_nothing(make_clip: Callable[..., Path], pix_fmt: str):
    rgba = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., 3] = 255
    plain = {"rgba": "rgb24", "gbrap10le": "gbrp10le", "yuva444p": "yuv444p"}[pix_fmt]
    codec = "png" if pix_fmt == "rgba" else "ffv1"
    name = "mov" if codec == "png" else "mkv"
    stored = VideoFrame.from_ndarray(rgba, format="rgba")
    with_alpha, line = shown(str(make_clip(f"a.{name}", [stored], codec, pix_fmt)), GREEN)
    without, _ = shown(str(make_clip(f"b.{name}", [stored], codec, plain)), GREEN)
    assert np.array_equal(with_alpha, without)
    assert line is None


def test_scaling_does_not_mix_in_what_is_hidden(make_clip: Callable[..., Path]):
    rgba = picture(levels=False)
    rgba[:, :80, :3] = (0, 0, 200)  # blue that is seen beside red that is not
    clip = make_clip("a.mov", [VideoFrame.from_ndarray(rgba, format="rgba")], "png", "rgba")
    rgb, _ = shown(str(clip), BLACK, (60, 30))
    assert rgb[..., 0].max() <= 2
    assert rgba[..., 0].max() > 200  # guards the test


@pytest.mark.parametrize(
    ("told", "colour"), [("#ff8800", (255, 136, 0)), ("white", (255, 255, 255)), ([1, 2, 3], (1, 2, 3))]
)
def test_the_key_background_reaches_the_source(make_clip: Callable[..., Path], told: Any, colour: Any):
    clip = make_clip("a.mov", [VideoFrame.from_ndarray(picture(), format="rgba")], "png", "rgba")
    config = validate({"source": str(clip), "sinks": ["null:"], "background": told})
    assert validate(config.model_dump(mode="json")) == config  # as it travels to workers
    info = VideoInfo(WIDTH, HEIGHT, Fraction(25), Fraction(1, 25))
    source = endpoints_of(config, info, (WIDTH, HEIGHT)).source()
    frame = source.read()
    source.close()
    assert frame is not None
    assert tuple(frame.rgb[HEIGHT // 2, 104]) == colour


@pytest.mark.parametrize("told", ["no colour", "#12", [0, 0, 256], 7])
def test_a_background_that_is_no_colour_is_refused_in_one_line(told: Any):
    with pytest.raises(ConfigError, match="background") as refused:
        validate({"source": "a.mov", "background": told})
    assert "\n" not in str(refused.value)
