"""Law: whatever the format, range, matrix, rotation and pixel aspect, RGB is what a player would show."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources import open_source, probe

from .conftest import fill

PATCHES = np.array([[16, 16, 16], [235, 235, 235], [200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40],
                    [128, 128, 128], [220, 120, 60]])  # fmt: skip
KR_KB = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593)}
TAG = {"bt709": 1, "bt601": 6, "bt2020": 9}


def patches(width: int = 128, height: int = 32) -> Any:
    return np.repeat(np.repeat(PATCHES[None], width // 8, 1), height, 0)


def yuv_of(rgb: Any, matrix: str, full: bool, bits: int) -> list[Any]:
    """Y, U, V planes from the definition in ITU-T H.273."""
    kr, kb = KR_KB[matrix]
    r, g, b = (rgb[..., i] / 255 for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    unit = 1 << (bits - 8)
    if full:
        top = (1 << bits) - 1
        planes = [y * top, u * top + 128 * unit, v * top + 128 * unit]
    else:
        planes = [(219 * y + 16) * unit, (224 * u + 128) * unit, (224 * v + 128) * unit]
    return [np.clip(np.rint(p), 0, (1 << bits) - 1).astype(np.uint8 if bits == 8 else np.uint16) for p in planes]


def frame_of(rgb: Any, matrix: str, full: bool, pix_fmt: str) -> VideoFrame:
    bits = int(pix_fmt[7:].removesuffix("le") or 8)
    step_x, step_y = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[pix_fmt[3:6]]
    y, u, v = yuv_of(rgb, matrix, full, bits)
    frame = VideoFrame(rgb.shape[1], rgb.shape[0], pix_fmt)
    return fill(frame, [y, u[::step_y, ::step_x], v[::step_y, ::step_x]])


def middles(rgb: Any) -> Any:
    width = rgb.shape[1]
    return rgb[rgb.shape[0] // 2, [(2 * i + 1) * width // 16 for i in range(8)]].astype(int)


@pytest.mark.parametrize("pix_fmt", [f"yuv{s}p{bits}" for s in (420, 422, 444) for bits in ("", "9le", "10le", "12le")])
@pytest.mark.parametrize("matrix", ["bt709", "bt601", "bt2020"])
@pytest.mark.parametrize("full", [False, True])
def test_colour_tags_are_obeyed(make_clip: Callable[..., Path], pix_fmt: str, matrix: str, full: bool):
    frame = frame_of(patches(), matrix, full, pix_fmt)
    colour = {"colorspace": TAG[matrix], "color_range": 2 if full else 1}
    clip = make_clip("tagged.mkv", [frame], "ffv1", pix_fmt, colour=colour)
    shown = middles(open_source(str(clip)).read().rgb)  # type: ignore[union-attr]
    assert np.abs(shown - PATCHES).max() <= 3


@pytest.mark.parametrize(
    ("width", "lines", "matrix", "wrong"),
    [
        (128, 480, "bt601", "bt709"),
        (720, 576, "bt601", "bt709"),
        (128, 720, "bt709", "bt601"),
        (1280, 534, "bt709", "bt601"),  # a cinema crop
        (1024, 600, "bt709", "bt601"),
    ],
)
def test_untagged_video_is_bt709_if_it_is_hd_by_width_or_lines(
    make_clip: Callable[..., Path], width: int, lines: int, matrix: str, wrong: str
):
    clips = {}
    for name in (matrix, wrong):
        frame = frame_of(patches(width, lines), name, False, "yuv420p")
        clips[name] = make_clip(f"{name}.mkv", [frame], "ffv1", "yuv420p")
    off = {n: np.abs(middles(open_source(str(c)).read().rgb) - PATCHES).max() for n, c in clips.items()}  # type: ignore[union-attr]
    assert off[matrix] <= 3
    assert off[wrong] > 8  # guards the test: the other matrix is seen


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"),
    [("png", "rgb24", "a.mov"), ("png", "rgba", "a.mov"), ("ffv1", "bgr0", "a.mkv"), ("utvideo", "gbrp", "a.avi")],
)
def test_rgb_passes_unchanged(make_clip: Callable[..., Path], codec: str, pix_fmt: str, name: str):
    rgb = np.random.default_rng(0).integers(0, 256, (32, 128, 3), np.uint8)
    shown = open_source(str(make_clip(name, [rgb], codec, pix_fmt))).read()
    assert shown is not None
    assert np.array_equal(shown.rgb, rgb)


@pytest.mark.parametrize("full", [False, True])
def test_grey_obeys_its_range(make_clip: Callable[..., Path], full: bool):
    levels = np.repeat(np.linspace(16, 235, 8).round().astype(np.uint8), 16)[None].repeat(32, 0)
    frame = fill(VideoFrame(128, 32, "gray"), [levels])
    clip = make_clip("g.mkv", [frame], "ffv1", "gray", colour={"color_range": 2 if full else 1})
    shown = middles(open_source(str(clip)).read().rgb)  # type: ignore[union-attr]
    stored = levels[0, 8::16].astype(float)
    expected = stored if full else (stored - 16) * 255 / 219
    assert np.abs(shown - expected[:, None]).max() <= 2


ONE = 1 << 16
TURNS = {  # FFmpeg's display matrix -> what a player shows of a picture
    "as stored": ([ONE, 0, 0, 0, ONE, 0, 0, 0, ONE << 14], lambda p: p),
    "quarter turn clockwise": ([0, ONE, 0, -ONE, 0, 0, 0, 0, ONE << 14], lambda p: np.rot90(p, -1)),
    "half turn": ([-ONE, 0, 0, 0, -ONE, 0, 0, 0, ONE << 14], lambda p: np.rot90(p, 2)),
    "quarter turn counter-clockwise": ([0, -ONE, 0, ONE, 0, 0, 0, 0, ONE << 14], lambda p: np.rot90(p, 1)),
    "mirrored": ([-ONE, 0, 0, 0, ONE, 0, 0, 0, ONE << 14], lambda p: p[:, ::-1]),
    "upside down": ([ONE, 0, 0, 0, -ONE, 0, 0, 0, ONE << 14], lambda p: p[::-1]),
    "transposed": ([0, ONE, 0, ONE, 0, 0, 0, 0, ONE << 14], lambda p: p.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("codec", ["png", "libx264"])
def test_a_rotated_clip_stands_upright(make_clip: Callable[..., Path], turn: str, codec: str):
    matrix, expected = TURNS[turn]
    corners = np.zeros((32, 64, 3), np.uint8)
    corners[:16, :32], corners[:16, 32:], corners[16:, :32] = (220, 30, 30), (30, 220, 30), (30, 30, 220)
    pix_fmt = "rgb24" if codec == "png" else "yuv420p"
    clip = make_clip("turned.mov", [corners], codec, pix_fmt, matrix=matrix)
    shown = open_source(str(clip)).read()
    upright = expected(corners)
    assert shown is not None
    assert shown.rgb.shape == upright.shape
    assert (probe(str(clip)).width, probe(str(clip)).height) == (upright.shape[1], upright.shape[0])
    assert np.abs(shown.rgb[8::16, 8::16].astype(int) - upright[8::16, 8::16]).max() < 12


def test_quarter_turns_agree_with_ffmpegs_own_account(make_clip: Callable[..., Path]):
    import av

    for turn, k in {"quarter turn clockwise": -1, "quarter turn counter-clockwise": 1, "half turn": 2}.items():
        clip = make_clip("t.mov", [np.zeros((32, 64, 3), np.uint8)], "png", "rgb24", matrix=TURNS[turn][0])
        with av.open(str(clip)) as opened:
            rotation = next(opened.decode(video=0)).rotation  # degrees counter-clockwise that a player turns it by
        assert rotation % 360 == k * 90 % 360


def disc(width: int, height: int, x: float, y: float, rx: float, ry: float) -> Any:
    yy, xx = np.mgrid[:height, :width]
    inside = ((xx - x) / rx) ** 2 + ((yy - y) / ry) ** 2 < 1
    return np.repeat((255 * inside).astype(np.uint8)[..., None], 3, 2)


def extent(rgb: Any) -> tuple[int, int, float, float]:
    yy, xx = np.nonzero(rgb[..., 0] > 127)
    return int(np.ptp(xx)) + 1, int(np.ptp(yy)) + 1, float(xx.mean()), float(yy.mean())


@pytest.mark.parametrize("sar", [Fraction(16, 11), Fraction(8, 9), Fraction(4, 3)])
def test_non_square_pixels_are_shown_square(make_clip: Callable[..., Path], sar: Fraction):
    squeezed = disc(176, 144, 88, 72, 40 / float(sar), 40)
    clip = make_clip("sar.mp4", [squeezed], sar=sar)
    info = probe(str(clip))
    assert (info.width, info.height) == (round(176 * sar) // 2 * 2, 144)
    wide, high, _, _ = extent(open_source(str(clip)).read().rgb)  # type: ignore[union-attr]
    assert abs(wide - high) <= 2
    wide, high, _, _ = extent(squeezed)
    assert abs(wide - high) > 5  # guards the test: the stored disc is no circle


@pytest.mark.parametrize("size", [(64, 64), (96, 32), (32, 96), (200, 200), (512, 288)])
@pytest.mark.parametrize("stored", [(160, 90), (90, 160), (128, 128)])
def test_the_picture_is_cropped_centrally_and_stays_in_shape(
    make_clip: Callable[..., Path], size: tuple[int, int], stored: tuple[int, int]
):
    width, height = stored
    clip = make_clip("c.mov", [disc(width, height, (width - 1) / 2, (height - 1) / 2, 12, 12)], "png", "rgb24")
    shown = open_source(str(clip), size=size).read()
    assert shown is not None
    assert shown.rgb.shape == (size[1], size[0], 3)
    wide, high, x, y = extent(shown.rgb)
    scale = max(size[0] / width, size[1] / height)
    assert abs(x - (size[0] - 1) / 2) <= 1
    assert abs(y - (size[1] - 1) / 2) <= 1
    if 24 * scale < min(size):
        assert abs(wide - 24 * scale) <= 2 + 0.03 * wide
        assert abs(high - 24 * scale) <= 2 + 0.03 * high


def test_an_odd_picture_is_cropped_to_even_not_scaled(make_clip: Callable[..., Path]):
    rgb = np.random.default_rng(0).integers(0, 256, (33, 65, 3), np.uint8)
    shown = open_source(str(make_clip("odd.mov", [rgb], "png", "rgb24"))).read()
    assert shown is not None
    assert np.array_equal(shown.rgb, rgb[:32, :64])


def test_shrinking_averages_what_falls_into_a_pixel(make_clip: Callable[..., Path]):
    stripes = np.zeros((64, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = open_source(str(make_clip("s.mov", [stripes], "png", "rgb24")), size=(64, 16)).read()
    assert shown is not None
    assert np.abs(shown.rgb.astype(int) - 127).max() <= 3  # a point sampler would give black or white


def test_an_absurd_aspect_is_refused(make_clip: Callable[..., Path]):
    clip = make_clip("thread.mov", [np.zeros((2000, 2, 3), np.uint8)], "png", "rgb24")
    with pytest.raises(SourceError, match="aspect"):
        open_source(str(clip), size=(512, 288))
