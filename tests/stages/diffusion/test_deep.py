"""The deep part of the UNet every N-th frame: exact at 1, the feature follows the flow, and no longer than a shot."""

import pytest
import torch
from support.polynomial import conditioned, latent
from support.split import Shallow, Whole, deep_of

from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import BundleError
from warpfuse.stages.diffusion.deep import DeepCache, check_deep
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.noise import Noises
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.rows import start
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling, frame_schedule
from warpfuse.stages.diffusion.settings import FuseSettings, Guidance, check_cache
from warpfuse.stages.diffusion.stream_batch import step_all
from warpfuse.stages.errors import DeepCacheError
from warpfuse.stages.frame import Frame, Latent, Motion, Stamp
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import level_at, levels

FRAMES, STEPS = 8, 2
TABLE = levels()
SAMPLING = Sampling("sample", open_solver("lcm"), lambda t: level_at(TABLE, t), 900.0, 100.0, True)


def settings(every=2, style=(0.4, 0.2), **changes):
    told = {"conditioning": conditioned(*style), "strength": 1.0, "steps": STEPS, "fuse": FuseSettings(weight=0.7)}
    return PredictSettings(**{**told, "cache_deep": every, **changes})


def fed(seq, *, of=None, moved=0.0, trusted=1.0, **stamp):
    """source, reference and motion of a frame of 64 x 64 px. of: the picture; moved: px to the right since the last."""
    at = Stamp(seq, 0, **stamp)
    flow = torch.zeros(1, 2, 64, 64)
    flow[:, 0] = -moved
    source = latent(seq if of is None else of)
    return Latent(at, source), Frame(at), Motion(at, flow, torch.full((1, 1, 64, 64), trusted))


class Staged:
    """The stage, and what its two networks were called for."""

    def __init__(self, told, *, stream=False, batch=None):
        self.whole, self.shallow = Whole(batch), Shallow(batch)
        self.stage = Predict(Denoise(self.whole, SAMPLING, self.shallow), SAMPLING, told, 3, "cpu", stream=stream)

    def __call__(self, frames, changes=None):
        """The latents of the frames. changes: settings from a frame on, by its number."""
        out = []
        for frame in frames:
            if changes and frame[0].stamp.seq in changes:
                self.stage.update(changes[frame[0].stamp.seq])
            out.append((self.stage.held if frame[0].stamp.hold else self.stage)(*frame))
        while (late := self.stage.flush()) is not None:
            out.append(late)
        return [frame.z for frame in out if isinstance(frame, Latent)]

    @property
    def calls(self):
        """Network calls of the whole UNet and of its shallow part."""
        return len(self.whole.rows), len(self.shallow.rows)


def plain(frames, told=None, stream=False):
    """What the UNet gives without a shallow part."""
    stage = Predict(Denoise(Whole(), SAMPLING), SAMPLING, told or settings(1), 3, "cpu", stream=stream)
    out = [stage(*frame) for frame in frames]
    while (late := stage.flush()) is not None:
        out.append(late)
    return [frame.z for frame in out if frame is not None]


def same(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.mark.parametrize("stream", [False, True])
def test_with_1_the_shallow_part_never_runs_and_pictures_are_those_of_the_unet(stream):
    frames = [fed(seq, moved=3.0) for seq in range(FRAMES)]
    staged = Staged(settings(1), stream=stream)
    assert same(staged(frames), plain(frames, stream=stream)) and not staged.shallow.rows
    assert not same(Staged(settings(2), stream=stream)(frames), plain(frames, stream=stream)), "the control"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("every", [2, 3])
def test_a_still_clip_is_that_of_the_unet_at_a_fraction_of_its_calls(every, stream):
    frames = [fed(seq, of=0) for seq in range(FRAMES)]
    staged = Staged(settings(every), stream=stream)
    found = staged(frames)
    for a, b in zip(found, plain(frames, stream=stream), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert sum(staged.calls) == (FRAMES + STEPS - 1 if stream else FRAMES * STEPS)
    most = -(-FRAMES // every) * STEPS + STEPS
    assert len(staged.whole.rows) <= most


@pytest.mark.parametrize("every", [2, 3])
def test_frames_alone_run_the_deep_part_every_so_often(every):
    staged = Staged(settings(every))
    staged([fed(seq) for seq in range(FRAMES)])
    whole = len(range(0, FRAMES, every))
    assert staged.calls == (whole * STEPS, (FRAMES - whole) * STEPS)


def test_the_feature_moves_with_a_clip_that_moves_by_whole_cells():
    """Of every frame the shallow part is fed the feature of the last whole one, along the flow of all frames since."""
    staged = Staged(settings(3, steps=1))
    frames = [fed(0), fed(1, moved=8.0), fed(2, moved=16.0)]
    given = _features(frames[0])
    staged(frames)
    one, two = staged.shallow.fed
    assert torch.equal(one[..., 1:], given[..., :-1])
    assert torch.equal(two[..., 3:], given[..., :-3])
    assert not torch.equal(one, given), "the control: without the warp it is where it was"


def _features(frame):
    """The deep feature of a first frame."""
    row = start(frame[0], frame_schedule(SAMPLING, settings(steps=1)), Noises(3, torch.device("cpu")), None, None)
    return deep_of({"x": row.x, "source": row.source, "style": torch.tensor([[0.4, 0.2]])})


@pytest.mark.parametrize("how", ["trust", "discontinuity", "no motion"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_first_frame_after_a_cut_is_the_first_frame_of_a_new_run(how, stream):
    cut = {"trust": {"trusted": 0.0}, "discontinuity": {"discontinuity": True}, "no motion": {}}[how]
    frames = [fed(seq, **cut if seq == 5 else {}) for seq in range(FRAMES)]
    if how == "no motion":
        frames[5] = (*frames[5][:2], None)
    whole = Staged(settings(4), stream=stream)(frames)
    assert torch.equal(whole[5], Staged(settings(4), stream=stream)(frames[5:])[0])
    uncut = Staged(settings(4), stream=False)([fed(seq) for seq in range(FRAMES)])
    assert stream or not torch.equal(whole[5], uncut[5]), "the control: without a cut a feature is used"


OTHERS = {
    "prompt": {"style": (0.9, 0.1)},
    "strength": {"strength": 0.6},
    "steps": {"steps": 1},
    "fusion": {"fuse": FuseSettings(weight=0.3)},
    "every": {"every": 5},
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_other_settings_compute_everything_at_once_and_equal_ones_do_not(change):
    frames = [fed(seq) for seq in range(FRAMES)]
    new = settings(**{"every": 4, **change})
    changed = Staged(settings(4))(frames, {5: new})
    assert torch.equal(changed[5], plain(frames[5:6], new)[0])
    again = Staged(settings(4))
    assert same(again(frames, {5: settings(4)}), Staged(settings(4))(frames)), "equal tensors in other memory"
    assert again.calls == (2 * STEPS, 6 * STEPS)


def test_a_change_in_a_stream_batch_leaves_the_rows_before_it_alone():
    frames = [fed(seq, of=seq // 5) for seq in range(FRAMES)]
    new = settings(4, style=(0.9, 0.1))
    found = Staged(settings(4), stream=True)(frames, {5: new})
    still = Staged(settings(4), stream=True)(frames[:5])
    for a, b in zip(found[:5], still, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert torch.equal(found[5], plain(frames[5:6], new)[0])


def test_guidance_keeps_a_feature_for_each_of_its_two_passes():
    frames = [fed(seq, of=0) for seq in range(4)]
    told = settings(2, guidance=Guidance(mode="full", scale=1.7))
    staged = Staged(told)
    for a, b in zip(staged(frames), plain(frames, told), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert not torch.equal(*staged.shallow.fed[0].split(1)), "the control: the two differ"


def test_if_one_stream_needs_the_deep_part_it_runs_for_all():
    """Two streams in every call, of which one has a cut."""
    frames = [fed(seq, of=0) for seq in range(3)]
    cut = [*frames[:1], fed(1, of=7, discontinuity=True), fed(2, of=7)]
    both = Staged(settings(3, steps=1))
    schedule, noises = frame_schedule(SAMPLING, settings(3, steps=1)), Noises(3, torch.device("cpu"))
    denoise = Denoise(both.whole, SAMPLING, both.shallow)
    caches = [DeepCache(torch.device("cpu")) for _ in range(2)]
    for pair in zip(frames, cut, strict=True):
        rows = [start(frame[0], schedule, noises, None, None) for frame in pair]
        for row, frame, cache in zip(rows, pair, caches, strict=True):
            row.deep = cache.enter(frame[0].stamp, frame[2], 3, (8, 8))
        step_all(rows, denoise, {})
        for row, frame in zip(rows, pair, strict=True):
            assert torch.allclose(row.x, plain([frame], settings(1, steps=1))[0], atol=1e-6)
    assert both.whole.rows == [2, 2] and both.shallow.rows == [2]


@pytest.mark.parametrize("hold, moved", [("skip", 8.0), ("repeat", None)])
def test_the_feature_is_found_across_a_held_frame(hold, moved):
    """A skipped frame has a flow, and that of the next leads to it. A repeated one has none, and it leads past it."""
    staged = Staged(settings(4, steps=1))
    frames = [fed(0), fed(1, moved=moved or 0.0, hold=hold), fed(2, moved=8.0)]
    if moved is None:
        frames[1] = (*frames[1][:2], Frame(frames[1][0].stamp))
    given = _features(frames[0])
    staged(frames)
    cells = 1 if moved is None else 2
    (found,) = staged.shallow.fed
    assert torch.equal(found[..., cells:], given[..., :-cells])


def test_a_pass_that_a_failed_frame_did_not_reach_is_computed():
    """The flow of the next frame leads to the one that failed, and no feature of that pass came so far."""

    class Failing(Shallow):
        def __call__(self, inputs):
            given = super().__call__(inputs)
            if len(self.fed) == 1:
                raise RuntimeError("the card is gone")
            return given

    frames, whole, shallow = [fed(seq, of=0, moved=8.0) for seq in range(3)], Whole(), Failing()
    stage = Predict(Denoise(whole, SAMPLING, shallow), SAMPLING, settings(4), 3, "cpu")
    stage(*frames[0])
    with pytest.raises(RuntimeError):
        stage(*frames[1])
    stage(*frames[2])
    first, second = shallow.fed
    assert torch.equal(second[..., 1:], first[..., :-1]), "the first pass: by two frames' flow"
    assert len(whole.rows) == STEPS + 1, "the second one"


def test_after_a_restart_nothing_is_remembered():
    staged = Staged(settings(3))
    frames = [fed(seq) for seq in range(4)]
    first = staged(frames)
    staged.stage.reset()
    assert same(staged(frames), first)


@pytest.mark.parametrize("stream", [False, True])
def test_a_network_of_a_fixed_batch_gives_the_same(stream):
    frames = [fed(seq, moved=4.0) for seq in range(FRAMES)]
    assert same(Staged(settings(2), stream=stream, batch=2)(frames), Staged(settings(2), stream=stream)(frames))


def test_a_loop_that_keeps_features_is_not_captured():
    """Which network runs is decided on the host, by the trust. Nor is one with rows that began so."""
    staged = Staged(settings(1), stream=True)
    staged.whole.capturable = True
    source, reference, motion = fed(0)

    def captured():
        return staged.stage.prepare(source.stamp, {"source": source, "motion": motion}) is not None

    assert captured()
    staged.stage.update(settings(2))
    assert not captured()
    staged.stage(source, reference, motion)
    staged.stage.update(settings(1))
    assert not captured()
    for seq in (1, 2):
        staged.stage(*fed(seq))
    assert captured(), "the control"


def test_a_network_that_does_not_fit_its_bundle_and_a_bundle_that_is_not_split_are_refused():
    deep = (TensorSpec("output", "float32", (1,)), TensorSpec("deep", "float32", (1,)))
    check_deep(deep, True)
    check_deep(deep[:1], False)
    with pytest.raises(BundleError, match="the output 'deep' is missing, by the bundle it is needed"):
        check_deep(deep[:1], True)
    with pytest.raises(BundleError, match="the output 'deep' is there, by the bundle it is not used"):
        check_deep(deep, False)
    check_cache(1, splits=False)
    check_cache(4, splits=True)
    with pytest.raises(DeepCacheError, match=r"stages\.predict\.cache_deep=4: the UNet of this bundle is not split"):
        check_cache(4, splits=False)
