"""Tokens of earlier frames: the right frame's, at the right level, from where they were, and no longer than a shot."""

import gc

import pytest
import torch
from support.polynomial import Polynomial, conditioned, latent
from support.remembering import FINE, HALF, Remembering, kept_of, memory

from warpfuse.engine.errors import BundleError
from warpfuse.stages import cpu, formulas
from warpfuse.stages.diffusion.attention import CrossFrame, TokenPast, check_memory, places_of, pulled
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling
from warpfuse.stages.diffusion.settings import (
    RECIPES,
    AttentionSettings,
    FuseSettings,
    Guidance,
    PredictOptions,
    check_attention,
)
from warpfuse.stages.errors import AttentionError
from warpfuse.stages.frame import Latent, Motion, Stamp
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import level_at, levels

CPU = torch.device("cpu")
FRAMES, STEPS = 9, 3
TABLE = levels()
SAMPLING = Sampling("sample", open_solver("lcm"), lambda t: level_at(TABLE, t), 900.0, 100.0, True)
OFF = AttentionSettings(**RECIPES["off"])


def settings(attention=None, **changes):
    style = changes.pop("style", (0.4, 0.2))
    chosen = attention or AttentionSettings()
    fuse = FuseSettings(weight=0.7)
    return PredictSettings(
        **{"conditioning": conditioned(*style), "strength": 1.0, "steps": STEPS, "fuse": fuse, "attention": chosen,
           **changes}
    )  # fmt: skip


def fed(seq, trusted=1.0, flow_px=None, **stamp):
    """source, reference and motion of a frame of 64 x 64 pixels."""
    at = Stamp(seq, 0, **stamp)
    flow = 12 * torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(seq)) if flow_px is None else flow_px
    reference = Latent(at, latent(500 + seq), torch.full((1, 1, 8, 8), trusted))
    trust = torch.full((1, 1, 64, 64), trusted)
    return Latent(at, latent(seq)), reference, Motion(at, flow, trust)


def staged(unet, told, *, stream=False, references=2):
    attention = CrossFrame(memory(references), torch.float32, CPU)
    return Predict(Denoise(unet, SAMPLING), SAMPLING, told, 3, "cpu", stream=stream, attention=attention)


def predicted(frames, *, stream=False, unet=None, changes=None, told=None, references=2):
    stage = staged(unet or Remembering(references=references), told or settings(), stream=stream, references=references)
    out = []
    for frame in frames:
        if changes and frame[0].stamp.seq in changes:
            stage.update(changes[frame[0].stamp.seq])
        out.append((stage.held if frame[0].stamp.hold else stage)(*frame))
    while (late := stage.flush()) is not None:
        out.append(late)
    return [frame.z for frame in out if frame is not None]


def same(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


def calls(unet):
    """What the UNet was fed in each of its calls, one frame alone: [frame][call]."""
    return [unet.fed[start : start + STEPS] for start in range(0, len(unet.fed), STEPS)]


@pytest.mark.parametrize("stream", [False, True])
def test_off_is_the_network_without_whatever_lies_in_the_past(stream):
    frames = [fed(seq) for seq in range(FRAMES)]
    plain = Predict(Denoise(Polynomial(), SAMPLING), SAMPLING, settings(), 3, "cpu")
    wanted = [plain(*frame).z for frame in frames]
    assert same(predicted(frames, stream=stream, told=settings(OFF)), wanted)
    assert not same(predicted(frames, stream=stream), wanted), "the control: on it is another"


@pytest.mark.parametrize("name", [None, *RECIPES])
@pytest.mark.parametrize("steps, batch", [(2, None), (4, None), (3, 2)])
def test_the_stream_gives_the_pictures_of_frames_sampled_alone(name, steps, batch):
    """With a cut, which the trust tells of, and another prompt on the way."""
    chosen = AttentionSettings(**RECIPES[name]) if name else AttentionSettings(refresh=2)
    frames = [fed(seq, trusted=0.0 if seq == 4 else 0.75) for seq in range(FRAMES)]
    options = {
        "told": settings(chosen, steps=steps), "changes": {6: settings(chosen, steps=steps, style=(0.9, 0.1))}
    }  # fmt: skip
    alone = predicted(frames, **options)
    assert same(predicted(frames, unet=Remembering(batch), stream=True, **options), alone)
    other = {**options, "told": settings(AttentionSettings(own=0.25), steps=steps)}
    assert not same(predicted(frames, stream=True, **other), alone), "the control: other weights, other pictures"


def test_each_call_is_given_what_the_frame_before_left_at_the_same_level():
    unet = Remembering()
    predicted([fed(seq, flow_px=torch.zeros(1, 2, 64, 64)) for seq in range(4)], unet=unet)
    frames = calls(unet)
    for t in range(1, 4):
        for k in range(STEPS):
            anchor, previous = frames[t][k]["past"][0]
            assert torch.equal(previous, kept_of(frames[t - 1][k]["x"])[0])
            assert torch.equal(anchor, kept_of(frames[0][k]["x"])[0])
            other = (k + 1) % STEPS
            assert not torch.equal(previous, kept_of(frames[t - 1][other]["x"])[0]), "the control: another level"
    assert not any(call["past_weight"].any() for call in frames[0]), "the first frame sees none"


@pytest.mark.parametrize("how", ["trust", "discontinuity"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_first_frame_after_a_cut_is_the_first_frame_of_a_new_run(how, stream):
    cut = {"trusted": 0.0} if how == "trust" else {"discontinuity": True}
    frames = [fed(seq, **cut if seq == 4 else {}) for seq in range(FRAMES)]
    whole = predicted(frames, stream=stream)
    assert same(whole, predicted(frames[:4], stream=stream) + predicted(frames[4:], stream=stream))
    uncut = [fed(seq) for seq in range(FRAMES)]
    assert not torch.equal(whole[4], predicted(uncut, stream=stream)[4]), "the control: without a cut it sees them"
    if how == "trust":  # the control: whoever asks for no trust keeps the anchor
        told = settings(AttentionSettings(coverage=0))
        assert not torch.equal(predicted(frames, stream=stream, told=told)[4], whole[4])


@pytest.mark.parametrize("stream", [False, True])
def test_another_prompt_begins_anew_and_other_settings_do_not(stream):
    frames = [fed(seq) for seq in range(FRAMES)]
    new = settings(style=(0.9, 0.1))
    found = predicted(frames, stream=stream, changes={4: new})
    assert same(found[4:], predicted(frames[4:], stream=stream, told=new))
    weaker = settings(AttentionSettings(previous=0.5))
    onwards = predicted(frames, stream=stream, changes={4: weaker})
    assert not torch.equal(onwards[4], predicted(frames[4:], stream=stream, told=weaker)[0])
    assert same(onwards[:4], found[:4])


def test_after_a_restart_nothing_is_remembered():
    stage = staged(Remembering(), settings())
    frames = [fed(seq) for seq in range(FRAMES)]
    first = [stage(*frame).z for frame in frames]
    stage.reset()
    assert same([stage(*frame).z for frame in frames], first)


def test_a_call_that_fails_costs_its_frame_and_leaves_the_next_one_the_anchor():
    class Failing(Remembering):
        def __call__(self, inputs):
            if len(self.fed) == 2 * STEPS + 1:
                self.fed.append({})
                raise RuntimeError("the card is gone")
            return super().__call__(inputs)

    unet = Failing()
    stage = staged(unet, settings())
    for seq in (0, 1):
        stage(*fed(seq))
    with pytest.raises(RuntimeError):
        stage(*fed(2))
    stage(*fed(3))
    first, second = unet.fed[-STEPS]["past_weight"][0], unet.fed[-1]["past_weight"][0]
    assert first.min() == 1, "its first call was made, and left tokens"
    assert second[0].min() == 1 and second[1].max() == 0


def test_guidance_keeps_a_memory_for_each_of_its_two_passes():
    unet = Remembering()
    told = settings(guidance=Guidance(mode="full", scale=1.7))
    predicted([fed(seq, flow_px=torch.zeros(1, 2, 64, 64)) for seq in range(3)], unet=unet, told=told)
    assert all(len(call["x"]) == 2 for call in unet.fed)

    class Telling(Remembering):
        """Leaves what tells the two passes apart: the style that it is given."""

        def __call__(self, inputs):
            given = super().__call__(inputs)
            return {**given, "kept": given["kept"] * 0 + inputs["style"][:, :1]}

    unet = Telling()
    predicted([fed(seq) for seq in range(3)], unet=unet, told=told)
    for call in unet.fed[STEPS:]:
        assert torch.equal(call["past"][:, 1, 0], call["style"][:, 0]), "each its own"
        assert not torch.equal(call["past"][:, 1, 0].flip(0), call["style"][:, 0]), "the control: swapped"


def test_streams_in_one_call_see_their_own_past():
    """Two streams that share every call, each as if it were alone."""
    frames = {name: [fed(seq + start) for seq in range(5)] for name, start in (("a", 0), ("b", 40))}
    alone = {name: predicted(own) for name, own in frames.items()}
    from warpfuse.stages.diffusion.noise import Noises
    from warpfuse.stages.diffusion.rows import start
    from warpfuse.stages.diffusion.schedule import frame_schedule
    from warpfuse.stages.diffusion.stream_batch import step_all
    from warpfuse.stages.motion.warp import latent_trust

    denoise, told = Denoise(Remembering(), SAMPLING), frame_schedule(SAMPLING, settings())
    past = {name: CrossFrame(memory(), torch.float32, CPU) for name in frames}
    for t in range(5):
        rows = []
        for name, own in frames.items():
            source, reference, motion = own[t]
            row = start(source, told, Noises(3, CPU), reference, cpu)
            trust = latent_trust(formulas, motion.trust, 8, told.warp)
            asked = STEPS, told.conditioning, told.unconditional
            row.past = past[name].enter(row.stamp, told.attention, asked, motion.flow, trust)
            rows.append(row)
        while not rows[0].finished:
            step_all(rows, denoise, None)
        assert all(torch.equal(row.x, alone[name][t]) for row, name in zip(rows, frames, strict=True))


def test_no_flow_leaves_tokens_where_they_are_and_a_flow_of_whole_tokens_shifts_them():
    tokens = torch.randn(1, FINE + HALF, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pulled(tokens, memory(), places_of(torch.zeros(1, 2, 64, 64), memory(), cpu)), tokens)
    right = torch.zeros(1, 2, 64, 64)
    right[:, 0] = 16  # two tokens of the fine layer, one of the other
    moved = pulled(tokens, memory(), places_of(right, memory(), cpu))
    fine, was = moved[0, :FINE].view(8, 8, 4), tokens[0, :FINE].view(8, 8, 4)
    assert torch.equal(fine[:, :6], was[:, 2:]) and torch.equal(fine[:, 6:], was[:, 7:].expand(-1, 2, -1))
    half, was = moved[0, FINE:].view(4, 4, 4), tokens[0, FINE:].view(4, 4, 4)
    assert torch.equal(half[:, :3], was[:, 1:]) and not torch.equal(half, was)
    down = right.flip(1)
    assert torch.equal(pulled(tokens, memory(), places_of(down, memory(), cpu))[0, :FINE].view(8, 8, 4)[:6],
                       tokens[0, :FINE].view(8, 8, 4)[2:])  # fmt: skip


def weights(attention, frames, references=2):
    """`past_weight`, `own_weight` and `past` of the first call of the last frame."""
    unet = Remembering(references=references)
    stage = staged(unet, settings(attention), references=references)
    for frame in frames:
        (stage.held if frame[0].stamp.hold else stage)(*frame)
    last = calls(unet)[-1][0]
    return last["past_weight"][0], last["own_weight"].item(), last["past"][0]


def test_the_frame_before_counts_where_it_is_trusted_and_the_anchor_everywhere():
    frames = [fed(0), fed(1)]
    frames[1][2].trust[..., :32] = 0.25
    weight, own, _ = weights(AttentionSettings(own=0.75, anchor=0.5, previous=0.5), frames)
    assert own == 0.75 and torch.equal(weight[0], torch.full((8, 8), 0.5))
    assert torch.equal(weight[1], torch.tensor([0.125] * 4 + [0.5] * 4).expand(8, 8))
    unpulled, _, past = weights(AttentionSettings(pull="off"), frames)
    assert torch.equal(unpulled, torch.ones(2, 8, 8)) and torch.equal(past[0], past[1])


def test_without_flow_the_frame_before_counts_everywhere():
    weight, _, past = weights(AttentionSettings(), [fed(0)[:2], fed(1)[:2], fed(2)[:2]])
    assert torch.equal(weight, torch.ones(2, 8, 8)) and not torch.equal(past[0], past[1])


def test_outside_the_window_nothing_is_seen_and_all_is_kept():
    unet = Remembering()
    narrow = AttentionSettings(own=0.0, window=(0, 400))
    predicted([fed(seq, flow_px=torch.zeros(1, 2, 64, 64)) for seq in range(2)], unet=unet, told=settings(narrow))
    seen = [(call["past_weight"].max().item(), call["own_weight"].item()) for call in calls(unet)[1]]
    assert seen == [(0, 1), (0, 1), (1, 0)]
    assert torch.equal(calls(unet)[1][2]["past"][0, 1], kept_of(calls(unet)[0][2]["x"])[0])


def test_where_no_reference_is_own_tokens_count_whatever_is_asked():
    rerender = AttentionSettings(**RECIPES["rerender"])
    assert weights(rerender, [fed(0)])[1] == 1
    assert weights(rerender, [fed(0), fed(1)])[1] == 0
    assert weights(rerender, [fed(0), fed(1, trusted=0.0)])[1] == 1, "a cut that the device alone knows of"


def test_after_frames_that_were_held_tokens_stay_where_they_are():
    frames = [fed(0), fed(1, hold="warp"), fed(2, trusted=0.5)]
    frames[2][2].trust[..., :32] = 1.0
    weight, _, past = weights(AttentionSettings(), frames)
    assert torch.allclose(weight[1], torch.full((8, 8), 0.75)) and torch.equal(past[0], past[1])


@pytest.mark.parametrize("previous, found", [(0.5, 0.125), (0.0, 0.75)])
def test_one_reference_is_the_frame_before_or_the_anchor_where_that_is_off(previous, found):
    frames = [fed(0), fed(1), fed(2, trusted=0.25)]
    weight, _, _ = weights(AttentionSettings(anchor=0.75, previous=previous), frames, references=1)
    assert torch.equal(weight, torch.full((1, 8, 8), found))


def test_another_frame_becomes_the_anchor_after_as_many_as_are_asked_for():
    unet = Remembering()
    predicted([fed(seq) for seq in range(7)], unet=unet, told=settings(AttentionSettings(refresh=3)))
    frames = calls(unet)
    for t, of in {1: 0, 2: 0, 4: 3, 5: 3}.items():
        assert torch.equal(frames[t][0]["past"][0, 0], kept_of(frames[of][0]["x"])[0]), t
    assert [frame[0]["past_weight"][0, 0].max().item() for frame in frames] == [0, 1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("stream", [False, True])
def test_memory_does_not_grow_with_the_stream(stream):
    """Of each call the tokens of one frame and the anchor's: 2 K of them, however long it runs."""
    unet = Remembering()
    stage = staged(unet, settings(), stream=stream)
    held = []
    for seq in range(300):
        stage(*fed(seq % 7))
        unet.fed.clear()
        if seq in (20, 299):
            held.append(_remembered())
    assert held[0] == held[1]
    assert held[0][0] <= STEPS + 1 and held[0][1] == 2 * STEPS * memory().numbers * 4


def _remembered():
    """How many frames are remembered, and the bytes of their tokens."""
    gc.collect()
    pasts = [one for one in gc.get_objects() if type(one) is TokenPast]
    tokens = {id(x): x.nbytes for past in pasts for x in (*past.tokens.values(), *past.anchors.values())}
    return len(pasts), sum(tokens.values())


def test_recipes_go_by_name_and_off_is_a_word():
    for name, weights_of in RECIPES.items():
        found = PredictOptions.model_validate({"attention": name}).attention
        assert found.model_dump(include={"own", "anchor", "previous"}) == weights_of
    assert PredictOptions.model_validate({"attention": False}).attention == OFF, "as YAML reads off"
    assert AttentionSettings.model_validate({"pull": False}).pull == "off"
    with pytest.raises(ValueError, match="expected rerender, streamv2v, off, or keys and values, got 'rerendr'"):
        PredictOptions.model_validate({"attention": "rerendr"})
    with pytest.raises(ValueError, match="the lower first"):
        AttentionSettings(window=(900, 100))


def test_what_a_bundle_has_no_use_for_is_refused_and_what_it_lacks_too():
    check_attention(AttentionSettings(), attends=False)
    check_attention(OFF, attends=False)
    check_attention(AttentionSettings(own=0), attends=True)
    with pytest.raises(AttentionError, match=r"was exported without attention\. Export it again: .* --attention low"):
        check_attention(AttentionSettings(own=0), attends=False)
    unet = Remembering()
    check_memory(unet.inputs, memory())
    check_memory(Polynomial().inputs, None)
    with pytest.raises(BundleError, match=r"'past' is missing, by the bundle expected is \[rows, 2, 320\]"):
        check_memory(Polynomial().inputs, memory())
    with pytest.raises(BundleError, match=r"'past' is \[rows, 2, 320\], by the bundle expected is \[rows, 1, 320\]"):
        check_memory(unet.inputs, memory(1))
    with pytest.raises(BundleError, match="by the bundle expected is none"):
        check_memory(unet.inputs, None)
