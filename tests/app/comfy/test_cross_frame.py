"""What frames see of one another in attention, with the projections of a layer written out."""

import pytest
import torch
from support.comfy_denoisers import noise

from warpfuse.comfy.cross_frame import BatchCrossFrame, StreamCrossFrame, WeightedAttention, Weights, patched
from warpfuse.engine.errors import BadInput

FRAMES, TOKENS, WIDTH, HEADS = 3, 6, 16, 2
OUTPUT = {"block": ("output", 3), "block_index": 0, "sigmas": torch.tensor([6.3]), "n_heads": HEADS}
TO_Q, TO_K, TO_V = (noise(WIDTH, WIDTH, seed=20 + i) / 4 for i in range(3))


def attended(q, k, v, mask=0.0):
    q, k, v = (x.view(len(x), -1, HEADS, WIDTH // HEADS).transpose(1, 2) for x in (q, k, v))
    shares = (q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + mask).softmax(-1)
    return (shares @ v).transpose(1, 2).flatten(2)


def layer(n, patch=None, replace=None, **extra):
    """Self-attention as a block of ComfyUI runs it: `patch` before the projections, `replace` for the softmax."""
    extra = {**OUTPUT, "cond_or_uncond": [1, 0], **extra}
    context = value = n
    if patch is not None:
        n, context, value = patch(n, context, value, extra)
    q, k, v = n @ TO_Q, context @ TO_K, value @ TO_V
    return attended(q, k, v) if replace is None else replace(q, k, v, extra)


@pytest.fixture
def n():
    """Rows as ComfyUI orders them: all frames of the unconditional chunk, then those of the conditional one."""
    return noise(2 * FRAMES, TOKENS, WIDTH)


@pytest.mark.parametrize("weights", [Weights(), Weights(own=0.0), Weights(anchor=0.0), Weights(previous=0.0)])
def test_the_first_frame_is_unchanged_and_the_others_are_not(n, weights):
    alone, seen = layer(n), layer(n, BatchCrossFrame(weights, "output"))
    for first in (0, FRAMES):
        assert torch.allclose(seen[first], alone[first], atol=1e-5)
        assert all((seen[first + i] - alone[first + i]).abs().max() > 0.01 for i in range(1, FRAMES))


def test_a_frame_attends_to_itself_the_first_and_the_one_before(n):
    seen = layer(n, BatchCrossFrame(Weights(), "output"))
    keys = torch.cat((n[2], n[0], n[1]))[None]
    assert torch.allclose(seen[2], attended(n[2:3] @ TO_Q, keys @ TO_K, keys @ TO_V)[0], atol=1e-5)
    replaced = layer(n, BatchCrossFrame(Weights(own=0.0), "output"))  # Rerender-A-Video
    keys = torch.cat((n[0], n[1]))[None]
    assert torch.allclose(replaced[2], attended(n[2:3] @ TO_Q, keys @ TO_K, keys @ TO_V)[0], atol=1e-5)


def unsplit(n, context, value, extra):
    """The control: the batch taken for frames in a row, whatever chunk they are of."""
    keys = torch.cat((n, n[:1].expand_as(n), torch.cat((n[:1], n[:-1]))), dim=1)
    return n, keys, keys


def test_chunks_of_guidance_do_not_see_each_other(n):
    """The conditional rows are the same whatever the unconditional ones are."""
    other = torch.cat((noise(FRAMES, TOKENS, WIDTH, seed=50), n[FRAMES:]))
    patch = BatchCrossFrame(Weights(), "output")
    assert torch.equal(layer(n, patch)[FRAMES:], layer(other, patch)[FRAMES:])
    assert (layer(n, unsplit)[FRAMES:] - layer(other, unsplit)[FRAMES:]).abs().max() > 0.05, "the control"
    assert (layer(n, unsplit)[FRAMES] - layer(n)[FRAMES]).abs().max() > 0.05, "the control: frame 0 is changed"


def test_only_the_blocks_asked_for_take_part(n):
    for block, output, every in (
        (("input", 2), False, True),
        (("middle", 0), False, True),
        (("output", 3), True, True),
    ):
        for name, takes_part in (("output", output), ("all", every)):
            changed = not torch.equal(layer(n, BatchCrossFrame(Weights(), name), block=block), layer(n))
            assert changed == takes_part


def test_layers_that_attend_to_the_prompt_are_left_alone(n):
    prompt = noise(2 * FRAMES, 77, 32)
    assert BatchCrossFrame(Weights(), "all")(n, prompt, prompt, {**OUTPUT, "cond_or_uncond": [1, 0]})[1] is prompt


def test_a_weight_is_how_often_a_key_counts(n):
    """own 1 and anchor 0.5: as with its own tokens twice and the anchor's once."""
    weights = Weights(own=1.0, anchor=0.5, previous=0.0)
    seen = layer(n, BatchCrossFrame(weights, "output"), WeightedAttention(weights))
    keys = torch.cat((n[2], n[2], n[0]))[None]
    assert torch.allclose(seen[2], attended(n[2:3] @ TO_Q, keys @ TO_K, keys @ TO_V)[0], atol=1e-5)
    plain = layer(n, BatchCrossFrame(weights, "output"))
    assert (plain[2] - seen[2]).abs().max() > 0.01, "the control: without the mask the weight is not there"
    assert torch.allclose(layer(n, None, WeightedAttention(weights)), layer(n), atol=1e-5), (
        "other layers are as they were"
    )


def test_nothing_to_attend_to_is_refused():
    with pytest.raises(BadInput, match="own, anchor and previous are all 0"):
        BatchCrossFrame(Weights(0.0, 0.0, 0.0), "output")


def stream(frames, anchored, cuts=(0,)):
    """Each frame through the layer alone, as a video is sampled; at one level."""
    memory, out = StreamCrossFrame(anchored), []
    for i, frame in enumerate(frames):
        memory.begin(cut=i in cuts)
        out.append(layer(frame[None].repeat(2, 1, 1), memory)[1])
    return torch.stack(out), memory


@pytest.mark.parametrize("anchored", [True, False])
def test_one_after_the_other_they_see_what_a_batch_sees(anchored):
    frames = noise(FRAMES, TOKENS, WIDTH)
    weights = Weights(anchor=float(anchored))
    batch = layer(frames, BatchCrossFrame(weights, "output"), cond_or_uncond=[0])
    assert torch.allclose(stream(frames, anchored)[0], batch, atol=1e-5)


def test_a_cut_has_no_past_and_is_the_anchor_of_what_follows():
    frames = noise(5, TOKENS, WIDTH)
    seen, _ = stream(frames, True, cuts=(0, 2))
    assert torch.allclose(seen[2], layer(frames[2:3], cond_or_uncond=[0])[0], atol=1e-5)
    alone = torch.cat((stream(frames[:2], True)[0], stream(frames[2:], True)[0]))
    assert torch.allclose(seen, alone, atol=1e-5)
    assert (stream(frames, True)[0][2:] - alone[2:]).abs().max() > 0.01, "the control: without the cut it is remembered"


def test_levels_and_chunks_are_kept_apart():
    """Tokens of another level or chunk, in the same layer, are no past of these."""
    memory = StreamCrossFrame(anchored=False)
    memory.begin(cut=True)
    first, second = noise(2, TOKENS, WIDTH), noise(2, TOKENS, WIDTH, seed=1)
    layer(first, memory)
    memory.begin(cut=False)
    assert torch.allclose(layer(second, memory, sigmas=torch.tensor([2.7])), layer(second), atol=1e-5)
    keys = torch.cat((second[0], first[0]))[None]
    expected = attended(second[:1] @ TO_Q, keys @ TO_K, keys @ TO_V)
    assert torch.allclose(layer(second, memory)[:1], expected, atol=1e-5)


def test_a_stream_remembers_two_frames_however_long_it_is():
    def remembered(length):
        return len(stream(noise(length, TOKENS, WIDTH), True)[1])

    assert remembered(50) == remembered(4) == 3 * 2, "now, before and anchor, two chunks each"


class Patcher:
    """ComfyUI's ModelPatcher, as far as it is called: it records what is set on it."""

    def __init__(self, told=()):
        self.told = list(told)

    def clone(self):
        return Patcher(self.told)

    def __getattr__(self, name):
        return lambda *args: self.told.append((name, args))


def test_the_model_is_cloned_and_patched():
    model = Patcher()
    plain = patched(model, Weights(), "output")
    assert model.told == [] and [name for name, _ in plain.told] == ["set_model_attn1_patch"]
    weighted = patched(model, Weights(anchor=0.5), "all")
    blocks = {args[1:] for name, args in weighted.told if name == "set_model_attn1_replace"}
    assert {("middle", 0), ("input", 8), ("output", 11)} <= blocks


def test_the_nodes_patch_clones(run):
    from support.comfy_denoisers import a_motion

    model = Patcher()
    (seen,) = run("WarpfuseCrossFrame", model=model, blocks="output", own=1.0, anchor=1.0, previous=0.0)
    assert [name for name, _ in seen.told] == ["set_model_attn1_patch"] and model.told == []
    more = {"weight": 0.5, "start_percent": 0.1, "end_percent": 0.9, "reference": "first", "kappa": "auto"}
    (fused,) = run("WarpfuseFuseModel", model=model, motion=a_motion(), **more)
    assert model.told == []
    (wrapper, post) = fused.told
    assert wrapper[0] == "add_wrapper_with_key" and wrapper[1][0] == "sampler_sample"
    assert post[0] == "set_model_sampler_post_cfg_function"
    assert (post[1][0].weight, post[1][0].window, post[1][0].reference) == (0.5, (0.1, 0.9), "first")
