"""A keyframe in the sampler: its tokens and its statistics are the anchor's, while it is the anchor."""

import gc

import pytest
import torch
from support.polynomial import conditioned, latent
from support.remembering import Remembering, kept_of, memory
from torch.nn.functional import avg_pool2d

from warpfuse.stages.diffusion.attention import CrossFrame
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.keyframe_past import KeyframePast
from warpfuse.stages.diffusion.noise import Noises
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling
from warpfuse.stages.diffusion.settings import AttentionSettings, FuseSettings
from warpfuse.stages.frame import Frame, Latent, Motion, Stamp
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import level_at, levels
from warpfuse.stages.solvers.pair import compose

CPU = torch.device("cpu")
STEPS, SCALE = 3, 0.5
TABLE = levels()
SAMPLING = Sampling("sample", open_solver("lcm"), lambda t: level_at(TABLE, t), 900.0, 100.0, True)
KEY = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))


class Encoder:
    """The mean of 8 x 8 pixels, and of all channels as a fourth."""

    def __init__(self):
        self.runs, self.closed = 0, False

    def __call__(self, inputs):
        self.runs += 1
        z = avg_pool2d(inputs["rgb"], 8)
        return {"latent": torch.cat([z, z.mean(1, keepdim=True)], 1)}

    def close(self):
        self.closed = True


def latent_of(rgb):
    return Encoder()({"rgb": rgb})["latent"] * SCALE


def settings(style=(0.4, 0.2), attention=None, **fuse):
    return PredictSettings(
        conditioning=conditioned(*style),
        strength=1.0,
        steps=STEPS,
        fuse=FuseSettings(weight=0, **fuse),
        attention=attention or AttentionSettings(),
    )


def staged(unet, encoder, told, stream=False, pulls=None):
    return Predict(
        Denoise(unet, SAMPLING), SAMPLING, told, 3, "cpu", stream=stream, pulls=pulls,
        attention=CrossFrame(memory(), torch.float32, CPU), keyframe=KeyframePast(lambda: encoder, SCALE),
    )  # fmt: skip


def fed(seq, painted=None, known=1.0):
    """source, no reference, motion to the frame before and to the anchor. known: trust of both."""
    at = Stamp(seq, 0)
    flow, trust = torch.zeros(1, 2, 64, 64), torch.full((1, 1, 64, 64), known)
    motion = Motion(at, flow, trust)
    return Latent(at, latent(seq)), None, motion, motion if painted is None else Motion(at, flow, trust, painted, trust)


def noisy(rgb, k):
    z = latent_of(rgb)
    return compose(z, Noises(3, CPU).slot(0, z.shape), SAMPLING.plan(1.0, STEPS)[k].level)


def test_its_tokens_are_those_of_a_pass_at_each_level_and_every_frame_sees_them():
    unet, encoder = Remembering(), Encoder()
    stage = staged(unet, encoder, settings())
    for seq in range(3):
        stage(*fed(seq, KEY, known=0.0 if seq == 0 else 1.0))
    passes, frames = unet.fed[:STEPS], [unet.fed[n : n + STEPS] for n in range(STEPS, len(unet.fed), STEPS)]
    assert len(frames) == 3 and encoder.runs == 1, "a pass for each level, once"
    for k in range(STEPS):
        assert torch.equal(passes[k]["x"], noisy(KEY, k))
        assert not passes[k]["past_weight"].any() and passes[k]["own_weight"] == 1
        for frame in frames:
            assert torch.equal(frame[k]["past"][0, 0], kept_of(noisy(KEY, k))[0])
            assert bool((frame[k]["past_weight"][0, 0] == 1).all()), "the first frame too"
        assert not torch.equal(frames[1][k]["past"][0, 0], kept_of(noisy(KEY, (k + 1) % STEPS))[0]), "the control"


@pytest.mark.parametrize("what", ["another keyframe", "another prompt", "another weight"])
def test_passes_are_made_anew_where_they_would_be_others(what):
    unet, encoder = Remembering(), Encoder()
    stage, key = staged(unet, encoder, settings()), KEY
    stage(*fed(0, KEY))
    before = len(unet.fed)
    match what:
        case "another keyframe":
            key = 1 - KEY
        case "another prompt":
            stage.update(settings(style=(0.9, 0.1)))
        case "another weight":
            stage.update(settings(attention=AttentionSettings(anchor=0.5)))
    stage(*fed(1, key))
    assert len(unet.fed) - before == (STEPS if what == "another weight" else 2 * STEPS)
    assert torch.equal(unet.fed[-1]["past"][0, 0], kept_of(noisy(key, STEPS - 1))[0])
    stage(*fed(2, key.clone()))
    assert len(unet.fed) - before == (2 if what == "another weight" else 3) * STEPS, "a copy is the same keyframe"


def test_after_it_the_anchor_is_the_first_frame_without_it():
    unet = Remembering()
    stage = staged(unet, Encoder(), settings())
    for seq in range(2):
        stage(*fed(seq, KEY))
    unet.fed.clear()
    for seq in range(2, 5):
        stage(*fed(seq))
    frames = [unet.fed[n : n + STEPS] for n in range(0, len(unet.fed), STEPS)]
    assert torch.equal(frames[2][0]["past"][0, 0], kept_of(frames[0][0]["x"])[0])
    assert not frames[0][0]["past_weight"][0, 0].any()


def test_a_stream_gives_the_pictures_of_frames_sampled_alone():
    frames = [fed(seq, KEY if 2 <= seq < 5 else None, known=0.0 if seq == 5 else 0.75) for seq in range(8)]
    told = settings(adain={"weight": 1}, between=[{"kind": "latent", "of": "anchor", "weight": 0.5}])
    found = []
    for stream in (False, True):
        stage = staged(Remembering(), Encoder(), told, stream, {"latent": Still()})
        out = [stage(*frame) for frame in frames]
        while (late := stage.flush()) is not None:
            out.append(late)
        found.append([one.z for one in out if one is not None])
    assert len(found[0]) == 8 and all(map(torch.equal, *found))


class Still:
    """Nothing has moved."""

    def __call__(self, x0, motions, mode):
        return list(x0)

    def close(self):
        pass


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("painted", [False, True])
def test_memory_is_flat_over_300_frames_with_all_of_it(stream, painted):
    """Two references of attention, an anchor, AdaIN and several windows: as many tensors, and as large, after 300."""
    windows = [{"kind": "latent", "of": of, "weight": 0.5} for of in ("anchor", "previous")]
    told = settings(adain={"weight": 1}, between=windows)
    unet = Remembering()
    stage = staged(unet, Encoder(), told, stream, {"latent": Still()})
    held = []
    for seq in range(300):
        stage(*fed(seq, KEY if painted and seq % 100 >= 3 else None, known=0.0 if seq % 100 == 0 else 1.0))
        unet.fed.clear()
        if seq in (99, 199, 299):
            held.append(_held())
    assert held[0] == held[1] == held[2]
    kept = [torch.zeros(1000)]
    assert _held() != held[2], f"the control: {len(kept)} more is counted"


def _held():
    """How many tensors there are, and their bytes."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor]
    return len(tensors), sum(one.nbytes for one in tensors)


def test_statistics_are_those_of_its_latent():
    stage = staged(Remembering(), Encoder(), settings(adain={"weight": 1}))
    z = latent_of(KEY)
    for seq in range(2):
        found = stage(*fed(seq, KEY, known=0.0)).z
        for a, b in ((found, z), (found.square(), z.square())):
            torch.testing.assert_close(a.mean((2, 3)), b.mean((2, 3)), atol=1e-4, rtol=1e-3)
    plain = staged(Remembering(), Encoder(), settings())(*fed(0, KEY)).z
    assert (plain.mean((2, 3)) - z.mean((2, 3))).abs().max() > 0.05, "the control"


def test_where_nothing_is_taken_of_it_nothing_is_computed():
    unet, encoder = Remembering(), Encoder()
    stage = staged(unet, encoder, settings(attention=AttentionSettings(anchor=0)))
    stage(*fed(0, KEY))
    stage(Latent(Stamp(1, 0), latent(1)), None, fed(1)[2], Frame(Stamp(1, 0)))
    assert encoder.runs == 0 and len(unet.fed) == 2 * STEPS
    stage.close()
    assert not encoder.closed, "it was not opened"
    stage = staged(unet, encoder, settings())
    stage(*fed(0, KEY))
    stage.close()
    assert encoder.closed
