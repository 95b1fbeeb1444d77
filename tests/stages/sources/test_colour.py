"""Law: a picture with other primaries, or in HDR, looks on a BT.709 display as it is meant to; one line says so."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.display import EXACT

from .conftest import fill

BT709, P625, P525, BT2020, DISPLAY_P3 = 1, 5, 6, 9, 12
SDR, PQ, HLG = 1, 16, 18
ZIMG_PRIMARIES = {P625: "bt470bg", P525: "smpte170m", BT2020: "bt2020", DISPLAY_P3: "smpte432"}
ZIMG_TRANSFER = {SDR: "bt709", PQ: "smpte2084", HLG: "arib-std-b67"}
SIDE = 16  # px of a patch; each is read in its middle


def signal(patches: Any) -> VideoFrame:
    """Patches [n, 3] of values 0..1 as a row of squares, gbrp10le, which no matrix and no chroma touches."""
    values = np.rint(np.asarray(patches) * 1023).astype(np.uint16)
    row = np.repeat(values, SIDE, 0)[None].repeat(SIDE, 0)
    return fill(VideoFrame(row.shape[1], SIDE, "gbrp10le"), [row[..., 1], row[..., 2], row[..., 0]])


def middles(rgb: Any) -> Any:
    return rgb[SIDE // 2, SIDE // 2 :: SIDE].astype(int)


def clip_of(make_clip: Callable[..., Path], patches: Any, primaries: int, transfer: int) -> Path:
    colour = {"color_primaries": primaries, "color_trc": transfer, "color_range": 2}
    return make_clip("patches.mkv", [signal(patches)], "ffv1", "gbrp10le", colour=colour)


def shown(clip: Path) -> tuple[Any, str | None]:
    """The middles of the patches, and the line of the run."""
    source = open_source(str(clip))
    frame = source.read()
    assert frame is not None
    assert source.read() is None
    source.close()
    return middles(frame.rgb), source.warning


def zscale(patches: Any, primaries: int, transfer: int) -> Any:
    """What the program ffmpeg shows of them by zimg: light for light, SDR's white at 203 nits, nothing tone-mapped."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    if b" zscale " not in subprocess.run(["ffmpeg", "-v", "error", "-filters"], capture_output=True, check=True).stdout:
        pytest.skip("this ffmpeg has no zscale")
    frame = signal(patches)
    rows = [np.frombuffer(bytes(p), np.uint16).reshape(p.height, -1) for p in frame.planes]
    planes = b"".join(p[:, : frame.width].tobytes() for p in rows)
    given = f"p={ZIMG_PRIMARIES[primaries]}:t={ZIMG_TRANSFER[transfer]}:r=full"
    own = given.replace("p=", "pin=").replace("t=", "tin=").replace("r=", "rin=")
    # By way of YUV: only there zimg has the OOTF of HLG.
    told = f"zscale={own}:min=gbr:{given}:m=2020_ncl,format=yuv444p16,"
    told += f"zscale={own}:min=2020_ncl:p=bt709:t=bt709:r=full:m=gbr:npl=203,format=gbrp"
    size = f"{frame.width}x{frame.height}"
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "gbrp10le", "-s", size, "-i", "-", "-vf", told]
    done = subprocess.run([*command, "-f", "rawvideo", "-"], input=planes, capture_output=True, check=True)
    green, blue, red = np.frombuffer(done.stdout, np.uint8).reshape(3, SIDE, -1)
    return middles(np.stack([red, green, blue], -1))


def pq(nits: float) -> float:
    """BT.2100's inverse EOTF of PQ."""
    power = (nits / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


@pytest.mark.parametrize(("transfer", "white"), [(HLG, 0.75), (PQ, pq(203))])
def test_the_reference_white_of_hdr_is_nearly_white(make_clip: Callable[..., Path], transfer: int, white: float):
    levels, line = shown(clip_of(make_clip, [[white] * 3, [0] * 3, [1] * 3], BT2020, transfer))
    assert np.abs(levels[0] - 235).max() <= 8
    assert np.abs(levels[1]).max() <= 1
    assert np.abs(levels[2] - 255).max() <= 1
    assert line is not None
    assert "HDR shown as SDR" in line
    assert "\n" not in line


def test_hlg_of_a_phone_is_shown_as_sdr(make_clip: Callable[..., Path]):
    frame = VideoFrame(256, 144, "yuv420p10le")
    fill(frame, [np.full((144, 256), 721, np.uint16), *[np.full((72, 128), 512, np.uint16)] * 2])
    colour = {"color_primaries": BT2020, "color_trc": HLG, "colorspace": BT2020, "color_range": 1}
    clip = make_clip(
        "hlg.mp4", [frame], "libx265", "yuv420p10le", colour=colour, options={"x265-params": "log-level=0:bframes=0"}
    )
    levels, _ = shown(clip)
    assert np.abs(levels - 235).max() <= 8


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_below_the_knee_hdr_keeps_its_light(make_clip: Callable[..., Path], transfer: int):
    top = pq(80) if transfer == PQ else 0.5
    patches = np.random.default_rng(0).uniform(0.25 * top, top, (40, 3))
    if transfer == HLG:
        patches[:] = patches[:, :1]  # of colours zimg takes each channel for the luminance that BT.2100's OOTF is of
    expected = zscale(patches, BT2020, transfer)
    levels, _ = shown(clip_of(make_clip, patches, BT2020, transfer))
    assert np.abs(levels - expected).max() <= 3
    assert np.abs(np.rint(patches * 255) - expected).max() > 10  # guards the test: shown as if BT.709, it would be seen


def test_the_same_light_is_the_same_picture_in_hlg_and_pq(make_clip: Callable[..., Path]):
    hlg = np.random.default_rng(0).uniform(0.1, 1, (40, 3))
    scene = np.where(hlg <= 0.5, hlg**2 / 3, (np.exp((hlg - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    nits = 1000 * (scene @ [0.2627, 0.6780, 0.0593])[:, None] ** 0.2 * scene  # BT.2100, table 5
    in_hlg, _ = shown(clip_of(make_clip, hlg, BT2020, HLG))
    in_pq, _ = shown(clip_of(make_clip, np.vectorize(pq)(nits), BT2020, PQ))
    assert np.median(np.abs(in_hlg - in_pq)) <= 1
    assert np.abs(in_hlg - in_pq)[in_pq > 30].max() <= 4  # near black BT.709's curve is steep


def test_highlights_follow_the_curve_of_bt2390(make_clip: Callable[..., Path]):
    def eetf(nits: float) -> float:
        """BT.2390-8, 5.4.1, from 1000 to 203 nits."""
        value, top = pq(nits) / pq(1000), pq(203) / pq(1000)
        knee = 1.5 * top - 0.5
        if value < knee:
            return nits
        t = (value - knee) / (1 - knee)
        value = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
        low, high = 0.0, 10_000.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if pq(middle) < value * pq(1000) else (low, middle)
        return low

    nits = np.array([1, 10, 50, 100, 150, 203, 300, 500, 700, 1000])
    levels, _ = shown(clip_of(make_clip, [[pq(n)] * 3 for n in nits], BT2020, PQ))
    expected = [255 * (eetf(n) / 203) ** (1 / 2.4) for n in nits]
    assert np.abs(levels - np.array(expected)[:, None]).max() <= 2


@pytest.mark.parametrize("primaries", [BT2020, DISPLAY_P3, P625, P525])
def test_other_primaries_are_shown_light_for_light(make_clip: Callable[..., Path], primaries: int):
    """A line tells of those that hold colours which BT.709 cannot show."""
    patches = np.random.default_rng(0).uniform(0, 1, (60, 3))
    patches[:5] = patches[:5, :1]  # greys stay what they are
    expected = zscale(patches, primaries, SDR)
    levels, line = shown(clip_of(make_clip, patches, primaries, SDR))
    assert np.abs(levels - expected).max() <= 3
    assert np.abs(np.rint(patches * 255) - expected).max() > 8  # guards the test: the primaries are seen
    assert (line is not None and "shown in BT.709" in line) == (primaries in (BT2020, DISPLAY_P3))


def test_hdr_whose_primaries_are_not_tagged_has_those_of_bt2020(make_clip: Callable[..., Path]):
    patches = np.random.default_rng(0).uniform(0.1, 0.5, (20, 3))
    tagged, _ = shown(clip_of(make_clip, patches, BT2020, HLG))
    untagged, _ = shown(clip_of(make_clip, patches, 2, HLG))
    assert np.array_equal(tagged, untagged)


@pytest.mark.parametrize(
    "tags", [{}, {"color_primaries": BT709, "color_trc": SDR}, {"color_primaries": BT709, "color_trc": 13}]
)
@pytest.mark.parametrize("size", [None, (64, 48)])
def test_bt709_goes_through_swscale_alone(make_clip: Callable[..., Path], tags: dict[str, int], size: Any):
    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    colour = {"colorspace": 1, "color_range": 1, **tags}
    clip = make_clip("plain.mkv", [picture], "ffv1", "yuv420p", colour=colour)
    source = open_source(str(clip), size=size)
    frame = source.read()
    assert frame is not None
    assert source.warning is None
    with av.open(str(clip)) as opened:
        stored = next(opened.decode(video=0))
    kind = Interpolation.BICUBIC if size is None else Interpolation.AREA
    width, height = size or (128, 96)
    expected = stored.reformat(
        width, height, "rgb24", src_colorspace=1, dst_colorspace=5, src_color_range=1, dst_color_range=2,
        interpolation=int(kind) | EXACT,
    )  # fmt: skip
    assert np.array_equal(frame.rgb, expected.to_ndarray())
