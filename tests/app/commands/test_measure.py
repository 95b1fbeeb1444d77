"""The figures are those of the pictures in step, to the end of the shorter video: what boils scores worse."""

from fractions import Fraction

import numpy as np
import pytest

from warpfuse.commands import measure as measuring
from warpfuse.commands.measure import measure
from warpfuse.engine.errors import BadInput
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.motion.consistency import Consistency
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source
from warpfuse.stages.stage import VideoInfo

SIZE = (96, 64)
KEYS = {"e_warp", "e_warp_source", "tof", "sharpness", "hf_energy", "pairs"}


def write(path, pictures):
    pictures = list(pictures)
    size = pictures[0].shape[1], pictures[0].shape[0]
    sink = open_sink(str(path), VideoInfo(*size, Fraction(25), Fraction(1, 1000)), size)
    for number, picture in enumerate(pictures):
        sink.write(RawFrame(Stamp(number, number * 40_000_000), picture))
    sink.close(True)
    return str(path)


def scene(count, size=SIZE):
    """A textured picture that moves two pixels a frame."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(30, 226, (size[1] // 8, size[0] // 8 + 12, 3), dtype=np.uint8)
    wide = coarse.repeat(8, axis=0).repeat(8, axis=1)
    smooth = sum(np.roll(wide.astype(float), (i, j), (0, 1)) for i in range(4) for j in range(4)) / 16
    return [np.ascontiguousarray(smooth[:, 2 * t : 2 * t + size[0]]).astype(np.uint8) for t in range(count)]


def boiling(pictures):
    rng = np.random.default_rng(8)
    return [np.clip(p + rng.normal(0, 25, p.shape), 0, 255).astype(np.uint8) for p in pictures]


@pytest.fixture
def clip(tmp_path):
    return write(tmp_path / "source.mp4", scene(8))


def test_the_keys_are_exactly_these(clip):
    assert set(measure(clip, clip)) == KEYS


def test_a_boiling_video_scores_worse_than_a_steady_one(clip, tmp_path):
    steady = measure(clip, write(tmp_path / "steady.mp4", [255 - p for p in scene(8)]))
    boils = measure(clip, write(tmp_path / "boils.mp4", boiling(scene(8))))
    assert boils["e_warp"] > 5 * steady["e_warp"]
    assert steady["pairs"] == boils["pairs"] == 7


def test_frames_are_paired_in_step(clip, tmp_path):
    """The control: against a source one frame off, the same styled video gets other figures."""
    styled = write(tmp_path / "styled.mp4", boiling(scene(8)))
    consistency = Consistency()
    shifted = Consistency()
    before, after = ([f.rgb for f in iter(open_source(url).read, None)] for url in (clip, styled))
    for original, result in zip(before, after, strict=True):
        consistency.add(original, result)
    for original, result in zip(before[1:], after[:-1], strict=True):
        shifted.add(original, result)
    assert measure(clip, styled) == consistency.figures() != shifted.figures()


def test_a_source_of_another_size_is_brought_to_the_styled_one(tmp_path, monkeypatch):
    shapes = set()

    class Watched(Consistency):
        def add(self, source, styled):
            shapes.update((source.shape, styled.shape))
            super().add(source, styled)

    monkeypatch.setattr(measuring, "Consistency", Watched)
    large = write(tmp_path / "large.mp4", scene(4, (192, 128)))
    small = write(tmp_path / "small.mp4", scene(4))
    measure(large, small)
    assert shapes == {(64, 96, 3)}
    shapes.clear()
    measure(large, large, size=(64, 48))
    assert shapes == {(48, 64, 3)}


@pytest.mark.parametrize("lengths", [(8, 5), (5, 8)])
def test_the_shorter_one_ends_it_and_it_is_said(lengths, tmp_path):
    source, styled = (write(tmp_path / f"{i}.mp4", scene(n)) for i, n in enumerate(lengths))
    said, done = [], []
    figures = measure(source, styled, progress=lambda *at: done.append(at), say=said.append)
    assert figures["pairs"] == 4
    assert done == [(n, 5) for n in range(1, 6)]
    longer = source if lengths[0] > lengths[1] else styled
    assert said == [
        f"frames: {longer} goes on after the 5 of {styled if longer == source else source}; measured to there"
    ]


def test_of_equal_lengths_nothing_is_said(clip):
    said = []
    measure(clip, clip, say=said.append)
    assert said == []


@pytest.mark.parametrize("hoards", [False, True])
def test_no_clip_is_held(clip, monkeypatch, hoards):
    """Frames that were given out are let go: at most two of each are alive at a time. The control keeps them all."""
    alive, most, hoard = set(), 0, []

    class Picture(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    class Counting:
        def __init__(self, source):
            self._source = source

        def __getattr__(self, name):
            return getattr(self._source, name)

        def read(self):
            nonlocal most
            frame = self._source.read()
            if frame is None:
                return None
            picture = frame.rgb.view(Picture)
            alive.add(id(picture))
            most = max(most, len(alive))
            hoard.extend([picture] if hoards else [])
            return RawFrame(frame.stamp, picture)

    monkeypatch.setattr(measuring, "open_source", lambda *a, **k: Counting(open_source(*a, **k)))
    assert measure(clip, clip)["pairs"] == 7
    assert most == 16 if hoards else 0 < most <= 4


def test_fewer_than_two_frames_are_an_error_that_says_so(clip, tmp_path):
    one = write(tmp_path / "one.mp4", scene(1))
    with pytest.raises(BadInput, match=r"one\.mp4: steadiness takes two frames or more, got 1"):
        measure(clip, one)
    with pytest.raises(BadInput, match="no such file"):
        measure(clip, str(tmp_path / "none.mp4"))
