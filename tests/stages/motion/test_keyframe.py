"""Which frame a keyframe belongs to, how long it stays the anchor, and what is said of it."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from support.fields import as_bytes, constant_flow, end_point_error, frame_of, pan, texture

from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.errors import KeyframeError
from warpfuse.stages.formulas.downscale import luma
from warpfuse.stages.frame import Motion
from warpfuse.stages.geometry.framing import Framing
from warpfuse.stages.motion.anchor import Anchor, AnchorOptions
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.keyframe import details_of, likeness
from warpfuse.stages.motion.keyframe_file import check_keyframe
from warpfuse.stages.motion.settings import AnchorSettings, FlowSettings

H, W = 192, 256
STEP = (2, -1)


class Run:
    """The stage, with the flow to the frame before in front of it as a graph has it."""

    def __init__(self, taken=False, **settings):
        self.said, self._before, self._settings, self._taken = [], Flow(FlowSettings()), settings, taken
        self._stage = Anchor(
            Flow(FlowSettings()), self._options(), Framing((W, H), (W, H), (W, H)), "cpu", self.said.append
        )

    def __call__(self, rgb, n, discontinuity=False):
        frame = frame_of(rgb, n, discontinuity)
        return self._stage(frame, self._before(frame))

    def change(self, **settings):
        self._settings |= settings
        self._stage.update(self._options())

    def close(self):
        self._stage.close()
        return self.said

    def _options(self):
        return AnchorOptions(FlowSettings(), AnchorSettings(**self._settings), self._taken)


def painted_of(rgb):
    """As somebody may paint it: other colours, darker to one side, flat where it was fine, some grain."""
    grain = torch.rand(1, 3, H, W, generator=torch.Generator().manual_seed(1))
    shade = torch.linspace(0.4, 1, W)
    y = luma(torch.nn.functional.avg_pool2d(rgb, 3, 1, 1, count_include_pad=False))
    return (y * 8).round() / 8 * shade * torch.tensor([1, 0.7, 0.4])[:, None, None] * 0.85 + 0.15 * grain


def saved(path, rgb, cover=None):
    pixels = as_bytes(rgb)
    if cover is not None:
        pixels = np.dstack([pixels, cover])
    Image.fromarray(pixels).save(path)
    return str(path)


def is_keyed(found):
    return isinstance(found, Motion) and found.painted is not None


def keyed(found):
    """Numbers of the frames that have a keyframe."""
    return [n for n, motion in enumerate(found) if is_keyed(motion)]


@pytest.mark.parametrize("true", [0, 4, 9])
def test_it_is_the_frame_that_is_most_like_it(tmp_path, true):
    pictures = pan(10, H, W, (3, -2))
    run = Run(picture=saved(tmp_path / "key.png", painted_of(pictures[true])))
    found = [run(rgb, n) for n, rgb in enumerate(pictures)]
    assert keyed(found) and is_keyed(found[true])
    assert not found[true].flow.any() and bool((found[true].trust == 1).all()), "it is the frame itself"
    for n in range(true + 1, min(true + 5, 10)):
        truth = constant_flow(H, W, (n - true) * 3, (n - true) * -2)
        assert end_point_error(found[n].flow, truth, margin=24) < 0.5, n
    (line,) = run.close()
    assert f"key.png: of frame {true}, at {true * 0.04:.2f} s, likeness" in line


def test_at_says_which_frame_it_is(tmp_path):
    pictures = pan(6, H, W, STEP)
    name = saved(tmp_path / "key.png", texture(H, W, 77))
    run = Run(picture=name, at=0.12)
    assert keyed([run(rgb, n) for n, rgb in enumerate(pictures)]) == [3, 4, 5]
    assert run.close() == ["keyframe key.png: of frame 3, at 0.12 s"]
    without = Run(picture=name)
    assert keyed([without(rgb, n) for n, rgb in enumerate(pictures)]) == [], "the control: it is like none"
    (line,) = without.close()
    assert "no frame is like it" in line and "stages.anchor.at" in line


def test_a_time_that_has_passed_or_never_comes_is_said(tmp_path):
    pictures, name = pan(6, H, W, STEP), saved(tmp_path / "key.png", texture(H, W, 77))
    run = Run()
    assert keyed([run(rgb, n) for n, rgb in enumerate(pictures[:4])]) == []
    run.change(picture=name, at=0.04)
    assert not is_keyed(run(pictures[4], 4)) and not is_keyed(run(pictures[5], 5))
    assert ["is past 0.04 s already" in line for line in run.close()] == [True]
    late = Run(picture=name, at=9.0)
    late(pictures[0], 0)
    assert late.close() == ["keyframe key.png: no frame came at 9.00 s"]


def test_the_frame_it_was_painted_over_may_be_given(tmp_path):
    pictures = pan(8, H, W, STEP)
    key, frame = saved(tmp_path / "key.png", texture(H, W, 77)), saved(tmp_path / "frame.png", pictures[0])
    run = Run(picture=key, frame=frame)
    found = [run(rgb, n) for n, rgb in enumerate(pictures[5:], start=5)]
    assert keyed(found) == [0, 1, 2]
    assert end_point_error(found[0].flow, constant_flow(H, W, 5 * STEP[0], 5 * STEP[1]), margin=24) < 0.5
    other = Run(picture=key, frame=frame)
    pictures = [*pan(2, H, W, STEP, seed=9), *pictures[:2]]
    found = [other(rgb, n, discontinuity=n == 1) for n, rgb in enumerate(pictures)]
    assert keyed(found) == [2, 3], "not in another shot, and then it is waited for"
    assert run.close() == ["keyframe key.png: 91% of its frame is seen in frame 5"]


@pytest.mark.parametrize("how", ["cut", "discontinuity"])
def test_a_cut_forgets_it_and_the_anchor_is_a_frame_again(tmp_path, how):
    here, there = pan(3, H, W, STEP), pan(3, H, W, STEP, seed=9)
    pictures = [*here, *(there if how == "cut" else here), *here]
    run = Run(taken=True, picture=saved(tmp_path / "key.png", painted_of(here[0])))
    found = [run(rgb, n, discontinuity=how == "discontinuity" and n == 3) for n, rgb in enumerate(pictures)]
    assert keyed(found) == [0, 1, 2], "not even where a frame like it comes again"
    assert not found[3].trust.any() and found[4].trust.any(), "the first frame of the shot is the anchor"
    assert run.close()[-1] == "keyframe key.png: a cut forgets it"


def test_what_hides_it_does_not_forget_it(tmp_path):
    still = texture(H, W, 3)
    run = Run(picture=saved(tmp_path / "key.png", painted_of(still)))
    found = [run(still, 0), run(still, 1)]
    covers = texture(H, W, 8)
    for n, share in enumerate((0.3, 0.6, 0.95, 0.6, 0.3), start=2):
        hidden = still.clone()
        hidden[..., : int(W * share)] = covers[..., : int(W * share)]
        found.append(run(hidden, n))
    found.append(run(still, 7))
    assert keyed(found) == list(range(8))
    assert float(found[4].trust.mean()) < 0.2 < 0.95 < float(found[7].trust.mean())


def test_another_prompt_leaves_it_and_another_picture_takes_its_place(tmp_path):
    pictures = pan(6, H, W, STEP)
    name = saved(tmp_path / "key.png", painted_of(pictures[0]))
    run = Run(picture=name, at=0.0)
    first = run(pictures[0], 0)
    run._stage.update(AnchorOptions(FlowSettings(), AnchorSettings(picture=name, at=0.0), False, ("oil",)))
    same = run(pictures[1], 1)
    assert is_keyed(same) and same.painted is first.painted
    other = saved(tmp_path / "other.png", painted_of(pictures[2]).flip(1))
    run.change(picture=other, at=None)
    assert not torch.equal(run(pictures[2], 2).painted, first.painted)
    run.change(picture="")
    assert not is_keyed(run(pictures[3], 3))


def test_a_file_that_was_painted_on_is_read_once_it_is_given_again(tmp_path):
    still, name = texture(H, W, 3), tmp_path / "key.png"
    run = Run(picture=saved(name, painted_of(still)))
    before = run(still, 0).painted
    saved(name, painted_of(still).flip(1))
    os.utime(name, ns=(1, 1))
    assert torch.equal(run(still, 1).painted, before)
    run.change()
    assert not torch.equal(run(still, 2).painted, before)
    run.change()
    assert run(still, 3).painted is not None


def test_settings_of_the_flow_leave_it(tmp_path):
    pictures = pan(4, H, W, STEP)
    run = Run(picture=saved(tmp_path / "key.png", painted_of(pictures[0])), at=0)
    run(pictures[0], 0)
    small = FlowSettings(long_side=128, preset="medium")
    run._stage.update(AnchorOptions(small, AnchorSettings(**run._settings), False))
    found = run(pictures[3], 3)
    assert is_keyed(found) and end_point_error(found.flow, constant_flow(H, W, 6, -3), margin=24) < 0.7


def test_weight_is_the_share_and_none_is_no_keyframe(tmp_path):
    still = texture(H, W, 3)
    run = Run(picture=saved(tmp_path / "key.png", painted_of(still)), weight=0.5)
    assert bool((run(still, 0).share == 0.5).all())
    run.change(weight=0.25)
    found = run(still, 1)
    assert bool((found.share == 0.25).all()) and is_keyed(found)
    run.change(weight=0)
    assert not is_keyed(run(still, 2))
    run.change(weight=1)
    assert is_keyed(run(still, 3)), "it was not forgotten"


@pytest.mark.parametrize("taken", [False, True])
def test_a_keyframe_without_weight_is_looked_for_all_the_same(tmp_path, taken):
    pictures = pan(6, H, W, STEP)
    run = Run(taken=taken, picture=saved(tmp_path / "key.png", texture(H, W, 77)), at=0.04, weight=0)
    found = [run(rgb, n) for n, rgb in enumerate(pictures[:4])]
    assert keyed(found) == [] and [isinstance(one, Motion) for one in found] == [taken] * 4
    run.change(weight=0.5)
    late = run(pictures[4], 4)
    assert is_keyed(late) and end_point_error(late.flow, constant_flow(H, W, 6, -3), margin=24) < 0.5
    run.change(weight=0)
    begun = run(pictures[5], 5)
    assert not is_keyed(begun)
    assert not taken or not begun.trust.any(), "another frame is the anchor"


def test_what_is_transparent_has_no_share_and_shows_the_frame_below(tmp_path):
    still, key = texture(H, W, 3), painted_of(texture(H, W, 3))
    cover = np.zeros((H, W), np.uint8)
    cover[:, W // 2 :] = 255
    run = Run(picture=saved(tmp_path / "key.png", key, cover))
    found = run(still, 0)
    assert not found.share[..., : W // 2].any() and bool((found.share[..., W // 2 :] == 0.95).all())
    assert torch.equal(found.painted[..., : W // 2], still[..., : W // 2])
    assert (found.painted - key)[..., W // 2 :].abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("size", [(W // 2, H // 2), (2 * W, 2 * H), (3 * W, 2 * H)])
def test_a_picture_of_another_size_covers_the_frame_as_a_source_does(tmp_path, size):
    width, height = size
    path = tmp_path / "key.png"
    wide = Image.new("RGB", size, (255, 0, 0))
    inside = (W * height // H, height)
    wide.paste(Image.new("RGB", inside, (0, 255, 0)), ((width - inside[0]) // 2, 0))
    wide.save(path)
    run = Run(picture=str(path), at=0)
    found = run(texture(H, W, 3), 0).painted
    assert found.shape == (1, 3, H, W)
    middle = found[..., 4:-4]
    assert bool((middle[:, 1] > 0.99).all()) and bool((middle[:, 0] < 0.01).all()), "cropped about its middle"


@pytest.mark.parametrize("key", ["picture", "frame"])
@pytest.mark.parametrize("what", ["missing", "text", "cut off"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, key, what):
    path, good = tmp_path / "key.png", saved(tmp_path / "good.png", texture(H, W, 3))
    if what != "missing":
        path.write_bytes(b"no picture" if what == "text" else (tmp_path / "good.png").read_bytes()[:2000])
    settings = AnchorSettings(**{"picture": good, key: str(path)})
    line = rf"^stages\.anchor\.{key}: .*key\.png: .+\. Give a PNG, JPEG or WebP file$"
    with pytest.raises(KeyframeError, match=line):
        check_keyframe(settings)
    check_keyframe(AnchorSettings(picture=good, frame=good))


def test_likeness_is_a_correlation_of_details():
    ops, rgb = arithmetic("cpu"), texture(H, W, 3)
    a = details_of(rgb, None, ops)
    assert likeness(a, a) == pytest.approx(1)
    lighter = details_of(0.5 * rgb + 0.4, None, ops)
    assert likeness(a, lighter) == pytest.approx(1, abs=1e-4)
    assert likeness(a, details_of(1 - rgb, None, ops)) == pytest.approx(-1, abs=1e-4)
    assert likeness(a, details_of(torch.full_like(rgb, 0.5), None, ops)) == 0
    assert abs(likeness(a, details_of(texture(H, W, 4), None, ops))) < 0.3
    half = torch.zeros(1, 1, H, W)
    half[..., : W // 2] = 1
    other = rgb.clone()
    other[..., W // 2 :] = texture(H, W, 4)[..., W // 2 :]
    assert likeness(details_of(other, half, ops), a) > 0.95 > likeness(details_of(other, None, ops), a)


def test_sixteen_bits_of_gray_are_not_cut_off(tmp_path):
    ramp = np.linspace(0, 65535, W * H, dtype=np.uint16).reshape(H, W)
    Image.fromarray(ramp).save(tmp_path / "key.png")
    run = Run(picture=str(tmp_path / "key.png"), at=0)
    found = run(texture(H, W, 3), 0).painted
    assert (found[0, 0] - torch.from_numpy(ramp.astype(np.float32) / 65535)).abs().max() < 2 / 255
