"""Law: picture(seq) at p is picture(seq - 1) at p + flow wherever valid says so."""

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources import open_source, probe
from warpfuse.stages.sources.pattern import PatternSettings, PatternSource
from warpfuse.stages.sources.scene import MOTIONS

SEQS = (1, 7, 40)


def pattern(spec: str, **options: Any) -> PatternSource:
    source = open_source(f"pattern:{spec}", **options)
    assert isinstance(source, PatternSource)
    return source


def pull(picture: Any, flow: Any) -> Any:
    yy, xx = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return cv2.remap(picture, xx + flow[..., 0], yy + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def psnr(a: Any, b: Any, where: Any) -> float:
    error = np.mean((a.astype(np.float64) - b)[where] ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("size", ["512x288", "200x150"])
def test_the_flow_carries_the_last_picture_onto_this_one(motion: str, size: str):
    source = pattern(f"{size},motion={motion},seed=5")
    for seq in SEQS:
        flow, valid = source.flow(seq)
        before, now = source.picture(seq - 1), source.picture(seq)
        assert flow.dtype == np.float32
        assert flow.shape == (*now.shape[:2], 2)
        assert valid.mean() > 0.75
        assert psnr(pull(before, flow), now, valid) > 45
        if motion != "still":
            assert psnr(pull(before, -flow), now, valid) < 38  # guards the test: the wrong direction is seen
            assert psnr(before, now, valid) < 38


def test_what_was_hidden_is_not_valid():
    source = pattern("motion=objects")
    flow, valid = source.flow(20)
    inside = np.zeros_like(valid)
    inside[16:-16, 16:-16] = True
    pulled, now = pull(source.picture(19), flow), source.picture(20)
    assert (inside & ~valid).mean() > 0.01  # objects do hide something
    assert psnr(pulled, now, inside & valid) > psnr(pulled, now, inside & ~valid) + 6


def test_a_cut_shows_another_texture_every_k_frames():
    source = pattern("motion=pan,cut=10,frames=40")
    steps = [float(np.abs(source.picture(i).astype(int) - source.picture(i - 1)).mean()) for i in range(1, 40)]
    cuts = [i + 1 for i, step in enumerate(steps) if step > 2 * float(np.median(steps))]
    assert cuts == [10, 20, 30]
    assert not source.flow(10)[1].any()
    assert source.flow(11)[1].any()
    assert not source.flow(0)[1].any()


@pytest.mark.parametrize("motion", ["pan", "objects"])
def test_a_seed_gives_the_same_pictures_in_any_order(motion: str):
    one, other = (pattern(f"motion={motion},seed=3,cut=5,frames=8") for _ in range(2))
    read = [frame.rgb for frame in iter(one.read, None)]
    for seq in (7, 0, 5):
        assert np.array_equal(other.picture(seq), read[seq])
    assert not np.array_equal(pattern(f"motion={motion},seed=4").picture(0), read[0])


def test_the_url_says_what_comes():
    source = pattern("320x240@30000/1001,frames=3,motion=zoom,seed=9")
    assert source.info == probe("pattern:320x240@30000/1001,frames=3,motion=zoom,seed=9")
    assert (source.info.width, source.info.height, source.info.fps) == (320, 240, Fraction(30000, 1001))
    frames = list(iter(source.read, None))
    assert [frame.stamp.seq for frame in frames] == [0, 1, 2]
    assert [frame.stamp.pts_ns for frame in frames] == [0, 33366667, 66733333]
    assert frames[0].rgb.shape == (240, 320, 3)
    assert frames[0].rgb.flags.c_contiguous
    assert PatternSettings.parse("pattern:") == PatternSettings()


def test_size_and_frames_override_the_url():
    source = pattern("320x240,frames=9", size=(64, 48), frames=2)
    assert [frame.rgb.shape for frame in iter(source.read, None)] == [(48, 64, 3)] * 2
    assert source.flow(1)[0].shape == (48, 64, 2)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("pattern:motion=pam", "Did you mean 'pan'"),
        ("pattern:moton=pan", "Did you mean 'motion'"),
        ("pattern:frames=many", "not a number"),
        ("pattern:4x4", "from 16"),
        ("pattern:@0", "rate"),
        ("pattern:64x64@1/0", "not a number"),
        ("pattern:cut=-1", "cut"),
        ("pattern:seed=-1", "seed"),
    ],
)
def test_a_wrong_url_is_refused_with_the_right_spelling(url: str, words: str):
    with pytest.raises(SourceError, match=words):
        probe(url)


def test_a_live_pattern_waits_for_its_time_and_leaves_out_what_is_over():
    now, slept = [5_000_000_000], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += round(seconds * 1e9)

    settings = PatternSettings.parse("pattern:64x48@25,frames=4,live=1")
    source = PatternSource(settings, clock=lambda: now[0], sleep=sleep)
    steady = PatternSource(PatternSettings.parse("pattern:64x48@25"))
    first, second = source.read(), source.read()
    now[0] += 100_000_000  # two and a half frames of work
    third, fourth = source.read(), source.read()
    frames = [first, second, third, fourth]
    assert [frame.stamp.seq for frame in frames if frame] == [0, 1, 2, 3], "numbers stay gapless"
    assert [frame.stamp.pts_ns // 40_000_000 for frame in frames if frame] == [0, 1, 3, 4]
    assert third is not None and np.array_equal(third.rgb, steady.picture(3))
    assert slept == [0.04, 0.02] and source.skipped == 1
    assert source.read() is None, "frames counts what was given"
    assert probe("pattern:live=1").live and not probe("pattern:").live
