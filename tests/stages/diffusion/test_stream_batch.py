"""The stream batch against sampling each frame alone: the same pictures, K - 1 calls later, and never another's."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from support.polynomial import SHAPE, Polynomial, conditioned, latent

from warpfuse.stages import cpu
from warpfuse.stages.diffusion import rows
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.noise import Noises
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.reference_warp import LatentWarp
from warpfuse.stages.diffusion.rows import start
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling, frame_schedule
from warpfuse.stages.diffusion.settings import FuseSettings, Guidance
from warpfuse.stages.diffusion.spacing import Spacing
from warpfuse.stages.diffusion.stream_batch import StreamBatch
from warpfuse.stages.frame import Frame, Latent, Motion, Stamp
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import flow_level, level_at, levels, variance_exploding

FRAMES = 9
TABLE = levels()
BETWEEN = ["off", "reference", "latent"]
WINDOWS = [
    {"kind": "latent", "of": "anchor", "weight": 0.9, "window": (500, 1000)},
    {"kind": "latent", "weight": 0.4, "noise": "slot"},
    {"kind": "reference", "weight": 0.5, "inner_strength": 0.9, "noise": "fresh"},
]
ADAIN = {"weight": 0.7}
SOLVERS = ["ddim", "euler", "euler_ancestral", "heun", "lcm", "turbo", "rectified_flow", "ddim to the lowest"]


def sampling(name="lcm"):
    solver = open_solver(name.partition(" ")[0])
    level_of = {
        "vp": partial(level_at, TABLE),
        "ve": lambda t: variance_exploding(level_at(TABLE, t)),
        "flow": flow_level,
    }[solver.space]
    prediction = "flow" if solver.space == "flow" else "sample"
    found = Sampling(prediction, solver, level_of, 900.0, 100.0, strength_scales_style=True)
    return found if name == solver.name else replace(found, spacing=Spacing("leading", offset=1), end=TABLE[0])


def settings(**changes):
    told = {name: changes.pop(name) for name in ("between", "noise", "adain") if name in changes}
    fuse = FuseSettings(weight=0.7, **told)
    style = changes.pop("style", (0.4, 0.2))
    return PredictSettings(
        **{"conditioning": conditioned(*style), "strength": 1.0, "steps": 3, "fuse": fuse, **changes}
    )


def motion(seq, trusted=1.0):
    generator = torch.Generator().manual_seed(seq)
    flow = torch.randn(1, 2, 64, 64, generator=generator)
    return Motion(Stamp(seq, 0), flow, torch.full((1, 1, 64, 64), trusted))


def fed(seq, trusted=1.0):
    """source, reference and motion of a frame."""
    stamp = Stamp(seq, 0)
    reference = Latent(stamp, latent(500 + seq), torch.full((1, 1, 8, 8), trusted))
    return Latent(stamp, latent(seq)), reference, motion(seq, trusted)


def anchored(seq, trusted=1.0):
    """As `fed`, with the motion to the anchor; a frame without trust is one."""
    return *fed(seq), replace_seq(motion(700 + seq, trusted), seq)


def predicted(frames, *, stream, solver="lcm", unet=None, changes=None, **options):
    """Every frame through the stage; changes: seq -> settings from that frame on."""
    family = sampling(solver)
    stage = Predict(
        Denoise(unet or Polynomial(), family),
        family,
        settings(**options),
        3,
        "cpu",
        stream=stream,
        pulls={"latent": LatentWarp()},
    )
    out = []
    for frame in frames:
        if changes and frame[0].stamp.seq in changes:
            stage.update(changes[frame[0].stamp.seq])
        out.append(stage(*frame))
    while (late := stage.flush()) is not None:
        out.append(late)
    stage.close()
    return out


def same(a, b):
    return [f.stamp.seq for f in a] == [f.stamp.seq for f in b] and all(
        torch.equal(x.z, y.z) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_stream_gives_the_pictures_of_frames_sampled_alone(solver, between):
    frames = [fed(seq) for seq in range(FRAMES)]
    alone = predicted(frames, stream=False, solver=solver, between=between)
    streamed = predicted(frames, stream=True, solver=solver, between=between)
    calls = sampling(solver).calls(3)
    assert streamed[: calls - 1] == [None] * (calls - 1), "nothing before the pipe is full"
    assert same(streamed[calls - 1 :], alone)


@pytest.mark.parametrize("noise", ["model", "slot", "fresh"])
def test_every_noise_policy_streams(noise):
    frames = [fed(seq) for seq in range(FRAMES)]
    options = {"between": "latent", "noise": noise, "solver": "ddim"}
    assert same(predicted(frames, stream=True, **options)[2:], predicted(frames, stream=False, **options))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("renewed", [(0,), (0, 4, 5)])
def test_windows_and_statistics_of_an_anchor_stream(solver, renewed):
    """Each row has its own frame's anchor: the pictures are those of frames sampled alone."""
    frames = [anchored(seq, float(seq not in renewed)) for seq in range(FRAMES)]
    told = {"between": WINDOWS, "adain": ADAIN, "solver": solver}
    alone, streamed = (predicted(frames, stream=stream, **told) for stream in (False, True))
    assert same(streamed[sampling(solver).calls(3) - 1 :], alone)
    without = predicted(frames, stream=False, solver=solver, between=WINDOWS[1:])
    agree = [torch.equal(a.z, b.z) for a, b in zip(alone, without, strict=True)]
    assert agree[0] and not any(agree[1:4]), "the control: the anchor is asked"


def test_an_anchor_that_is_renewed_is_that_of_the_frames_after_it_alone():
    frames = [anchored(seq, float(seq not in (0, 4))) for seq in range(FRAMES)]
    told = {"stream": False, "between": WINDOWS[:1], "adain": ADAIN}
    whole = predicted(frames, **told)
    assert same(whole, predicted(frames[:4], **told) + predicted(frames[4:], **told))
    unbroken = predicted([anchored(seq, float(seq > 0)) for seq in range(FRAMES)], **told)
    assert not torch.equal(whole[5].z, unbroken[5].z), "the control: of frame 0 it is another"


def test_a_discontinuity_forgets_the_anchor():
    broken = [tuple(replace(part, stamp=replace(part.stamp, discontinuity=True)) for part in anchored(4))]
    frames = [anchored(seq, float(seq > 0)) for seq in range(4)] + broken
    told = {"stream": False, "between": WINDOWS[:1], "adain": ADAIN}
    assert same(predicted(frames, **told)[4:], predicted(broken, **told))
    assert not same(predicted([*frames[:4], anchored(4)], **told)[4:], predicted([anchored(4)], **told))


def test_a_window_alone_is_its_short_form_to_the_bit():
    frames = [fed(seq) for seq in range(FRAMES)]
    for kind in ("reference", "latent"):
        for noise in ("model", "slot", "fresh"):
            short = predicted(frames, stream=False, solver="ddim", between=kind, noise=noise)
            listed = predicted(frames, stream=False, solver="ddim", between=[{"kind": kind}], noise=noise)
            assert same(short, listed)
    assert not same(listed, predicted(frames, stream=False, solver="ddim", between=[{"kind": kind, "weight": 0.6}]))


@pytest.mark.parametrize("mode, rows", [("none", 3), ("full", 6), ("self", 3), ("initialize", 4)])
def test_guidance_streams_and_asks_as_many_rows_as_it_says(mode, rows):
    frames = [fed(seq) for seq in range(FRAMES)]
    unet, options = Polynomial(), {"guidance": Guidance(mode=mode, scale=1.7, delta=0.9)}
    streamed = predicted(frames, stream=True, unet=unet, **options)[2:]
    assert unet.rows[2 : FRAMES - 1] == [rows] * (FRAMES - 3), "the full pipe"
    assert same(streamed, predicted(frames, stream=False, **options))


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_a_network_built_for_a_fixed_batch_gives_the_same(batch):
    frames = [fed(seq) for seq in range(FRAMES)]
    options = {"stream": True, "guidance": Guidance(mode="initialize", scale=1.5)}
    assert same(predicted(frames, unet=Polynomial(batch), **options)[2:], predicted(frames, **options)[2:])


def test_the_past_of_another_level_would_not_be_the_same(monkeypatch):
    """The control: with x0 of the wrong level for a past, the stream and the frames alone no longer agree."""
    frames = [fed(seq) for seq in range(FRAMES)]
    alone = predicted(frames, stream=False, between="latent")

    def newest(row):
        return None if row.before is None else row.before.x0[max(0, row.k - 1)]

    monkeypatch.setattr(rows, "past_of", newest)
    assert not same(predicted(frames, stream=True, between="latent")[2:], alone)


def test_a_cut_resets_the_rows_that_straddle_it_and_no_other():
    """A frame without trust is sampled as if it were the first; those after it fuse it, those before never see it."""
    cut = 4
    frames = [fed(seq, trusted=0.0 if seq == cut else 1.0) for seq in range(FRAMES)]
    whole = predicted(frames, stream=True, between="latent")[2:]
    before = predicted(frames[:cut], stream=True, between="latent")[2:]
    after = predicted(frames[cut:], stream=True, between="latent")[2:]
    assert same(whole, before + after)
    uncut = predicted([fed(seq) for seq in range(FRAMES)], stream=True, between="latent")[2:]
    assert same(whole[:cut], uncut[:cut])
    assert not torch.equal(whole[cut].z, uncut[cut].z), "the control: without the cut it fuses"


def test_changes_reach_frames_in_order():
    """A frame keeps the prompt and strength it came with, whatever is set while it is in the batch."""
    changes = {3: settings(style=(0.9, 0.0)), 5: settings(style=(0.9, 0.0), strength=0.4)}
    frames = [fed(seq) for seq in range(FRAMES)]
    streamed = predicted(frames, stream=True, changes=changes)[2:]
    assert same(streamed, predicted(frames, stream=False, changes=changes))
    plain = predicted(frames, stream=True)[2:]
    agree = [torch.equal(a.z, b.z) for a, b in zip(streamed, plain, strict=True)]
    assert agree == [True] * 3 + [False] * 6


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("warp", [{"cell_norm": 3}, {"cell_norm": None}, {"mode": "nearest"}])
def test_the_settings_of_the_warp_hold_between_steps_and_change_with_a_frame(warp, stream):
    frames = [fed(seq) for seq in range(FRAMES)]
    for _, _, moved in frames:
        moved.trust[..., :3] = 0.5  # cells that are trusted in part: norms differ there
    given = WarpSettings(**warp)
    options = {"stream": stream, "between": "latent"}
    plain = predicted(frames, **options)
    told = predicted(frames, **options, warp=given)
    live = predicted(frames, **options, changes={4: settings(between="latent", warp=given)})
    plain, told, live = ([frame for frame in out if frame is not None] for out in (plain, told, live))
    assert not torch.equal(told[4].z, plain[4].z)
    assert same(live[:4], plain[:4]) and not torch.equal(live[4].z, plain[4].z)


@pytest.mark.parametrize("norm, power", [(2.0, 1 / 2), (3, 1 / 3), (1, 1), (None, 0)])
def test_the_past_is_trusted_between_steps_by_the_norm_of_the_warp(norm, power):
    """Of a cell of 8 columns 3 are trusted by half: what is distrusted has the norm 0.5 (3 / 8)^(1 / norm)."""

    class Recording(LatentWarp):
        def __call__(self, x0, motions, mode):
            seen.extend(motion.trust[0, 0, 0, 0].item() for motion in motions)
            return super().__call__(x0, motions, mode)

    seen, unet = [], Denoise(Polynomial(), sampling())
    told = settings(between="latent", warp=WarpSettings(cell_norm=norm))
    stage = Predict(unet, sampling(), told, 3, "cpu", pulls={"latent": Recording()})
    for seq in range(2):
        source, reference, moved = fed(seq)
        moved.trust[..., :3] = 0.5
        stage(source, reference, moved)
    assert seen == [pytest.approx(1 - 0.5 * (3 / 8) ** power)] * 2, "after two of three calls"


def test_streams_share_the_call_and_no_picture():
    """Two streams with one UNet call a step: each gets what it gets alone, though the other's frames are others."""
    family = sampling()
    programs = {"a": frame_schedule(family, settings(between="latent"))}
    programs["b"] = frame_schedule(family, settings(between="latent", style=(0.1, 0.7)))

    def rows(stream, offset):
        noises, last = Noises(offset, torch.device("cpu")), None
        for seq in range(FRAMES):
            source, reference, moved = fed(seq + offset)
            row = start(replace_seq(source, seq), programs[stream], noises, reference, cpu)
            trust = torch.ones(1, 1, 8, 8)
            row.motion, row.before = Motion(row.stamp, moved.flow, trust), last
            last = row
            yield row

    def sampled(unet, *streams):
        batch, found = StreamBatch(Denoise(unet, family), {"latent": LatentWarp()}), {name: [] for name, _ in streams}
        lanes = [(name, rows(name, offset)) for name, offset in streams]
        for _ in range(FRAMES + 2):
            arrived = [(name, row) for name, lane in lanes if (row := next(lane, None)) is not None]
            owner = {id(row): name for name, row in arrived}
            owners.update(owner)
            kept.extend(row for _, row in arrived)  # ids stay theirs
            for row in batch.step([row for _, row in arrived]):
                found[owners[id(row)]].append(row.x)
        return found

    owners, kept = {}, []
    unet = Polynomial()
    both = sampled(unet, ("a", 0), ("b", 40))
    assert unet.rows[2 : FRAMES - 1] == [6] * (FRAMES - 3), "one call for both"
    for name, offset in (("a", 0), ("b", 40)):
        alone = sampled(Polynomial(), (name, offset))[name]
        assert len(alone) == FRAMES
        assert all(torch.equal(x, y) for x, y in zip(alone, both[name], strict=True))


def replace_seq(frame, seq):
    return replace(frame, stamp=replace(frame.stamp, seq=seq))


def test_memory_does_not_grow_with_the_stream():
    """A finished row lets go of the frame before: no chain of all frames ever sampled."""
    family = sampling()
    stage = Predict(
        Denoise(Polynomial(), family),
        family,
        settings(between="latent"),
        0,
        "cpu",
        stream=True,
        pulls={"latent": LatentWarp()},
    )
    for seq in range(30):
        stage(*fed(seq))
    depth, row = 0, stage._last
    while row is not None:
        depth, row = depth + 1, row.before
    assert depth <= 4


def test_a_held_frame_costs_no_call():
    unet = Polynomial()
    family = sampling()
    stage = Predict(Denoise(unet, family), family, settings(), 0, "cpu")
    out = stage.held(Frame(Stamp(0, 0, hold="warp")), Frame(Stamp(0, 0, hold="warp")))
    assert unet.rows == [] and not out.tensors and out.stamp.hold == "warp"


def test_shapes_are_those_of_a_frame():
    (first, *_) = predicted([fed(0)], stream=False)
    assert first.z.shape == SHAPE
