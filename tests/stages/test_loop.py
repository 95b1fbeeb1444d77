"""The sampler replayed as CUDA graphs, on the simulated card: what it remembers moves on as if it had been called."""

from functools import partial

import pytest
import torch
from support.card import card
from support.card.sites import sites
from support.polynomial import SHAPE, Polynomial, conditioned, latent
from support.remembering import Remembering, memory

from warpfuse.engine.cuda_streams import new_stream, on
from warpfuse.stages.diffusion.attention import CrossFrame
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.prompts import Conditioning
from warpfuse.stages.diffusion.reference_warp import LatentWarp
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling
from warpfuse.stages.diffusion.settings import AttentionSettings, FuseSettings
from warpfuse.stages.frame import Frame, Latent, Motion, Stamp
from warpfuse.stages.loop import Loop, LoopCall
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import level_at, levels
from warpfuse.stages.stage import process

CARD, FRAMES = "cuda:0", 18
SAMPLING = Sampling("sample", open_solver("lcm"), partial(level_at, levels()), 900.0, 100.0, True)
PULLED = [
    {"kind": "latent", "of": "anchor", "weight": 0.9},
    {"kind": "latent", "weight": 0.4, "noise": "slot"},
    {"kind": "reference", "weight": 0.5, "noise": "fresh"},
]
KINDS = {
    "a stream batch": {"stream": True},
    "windows": {"fuse": {"between": PULLED, "adain": {"weight": 0.7}}},
    "windows in a stream batch": {"fuse": {"between": PULLED}, "stream": True},
    "fresh noise": {"fuse": {"noise": "fresh"}},
    "attention": {"attention": AttentionSettings(refresh=5)},
    "attention in a stream batch": {"attention": AttentionSettings(), "stream": True},
}
SEED = {"a cut": 8, "held": 12, "another weight": 14}


def on_card(x):
    return x.to(CARD)


class Sampler:
    """Predict with a network of plain torch, which can be captured; replayed, or called."""

    def __init__(self, *, replayed, stream=False, fuse=None, attention=None):
        unet = Polynomial() if attention is None else Remembering()
        unet.capturable = True
        self.told = {"fuse": {"weight": 0.7, **(fuse or {})}}
        self.attends = {} if attention is None else {"attention": attention}
        past = None if attention is None else CrossFrame(memory(), torch.float32, torch.device(CARD))
        pulls = {"latent": LatentWarp(CARD)}
        self.prompt = Conditioning(*(
            {name: on_card(x) for name, x in part.items()}
            for part in (conditioned(0.4, 0.2).given, conditioned(0.4, 0.2).unconditional)
        ))  # fmt: skip
        self.stage = Predict(
            Denoise(unet, SAMPLING), SAMPLING, self.settings(), 3, CARD, stream=stream, pulls=pulls, attention=past
        )
        self.said, self.replays = [], 0
        self.loop = Loop([self.stage], [0], CARD, self.said.append) if replayed else None

    def settings(self):
        fuse = FuseSettings(**self.told["fuse"])
        return PredictSettings(conditioning=self.prompt, strength=1.0, steps=3, fuse=fuse, **self.attends)

    def pictures(self):
        """(number, latent) of every frame it gives, on the host."""
        given = []
        for n in range(FRAMES):
            if n == SEED["another weight"]:
                self.told["fuse"]["weight"] = 0.3
                self.stage.update(self.settings())
            given.append(self._one(n))
        while (late := self.stage.flush()) is not None:
            given.append(late)
        return [(frame.stamp.seq, frame.z.cpu().tolist()) for frame in given if isinstance(frame, Latent)]

    def _one(self, n):
        stamp = Stamp(n, n, discontinuity=n == SEED["a cut"], hold="repeat" if n == SEED["held"] else "")
        generator = torch.Generator().manual_seed(n)
        flow, trust = on_card(torch.randn(1, 2, 64, 64, generator=generator)), torch.full((1, 1, 64, 64), 0.75)
        still = torch.zeros(1, 1, 64, 64) if n in (0, SEED["a cut"]) else trust
        inputs = {
            "source": Frame(stamp) if stamp.hold else Latent(stamp, on_card(latent(n))),
            "reference": Latent(stamp, on_card(latent(500 + n)), on_card(torch.full((1, 1, *SHAPE[2:]), 0.75))),
            "motion": Motion(stamp, flow, on_card(trust)),
            "anchor": Motion(stamp, flow, on_card(still)),
        }
        given = self.loop([LoopCall(stamp, inputs)]) if self.loop is not None else None
        self.replays += given is not None
        return process(self.stage, inputs, stamp.hold) if given is None else given[0]


def pictures_of(*, replayed=True, **options):
    with on(new_stream(CARD)):
        sampler = Sampler(replayed=replayed, **options)
        return sampler.pictures(), sampler


@pytest.mark.parametrize("kind", KINDS)
def test_replayed_and_called_are_the_same_to_the_bit(kind):
    """With a cut, a held frame and another weight on the way."""
    held = {} if not KINDS[kind].get("stream") else {"held": FRAMES}  # a stream batch holds none
    with card() as sim, pytest.MonkeyPatch.context() as patch:
        for name, n in held.items():
            patch.setitem(SEED, name, n)
        found, sampler = pictures_of(**KINDS[kind])
        expected, _ = pictures_of(replayed=False, **KINDS[kind])
    assert found == expected and [n for n, _ in expected] == [n for n in range(FRAMES) if n != SEED["held"] or held]
    assert not sim.races, "\n".join(map(str, sim.races[:3]))
    assert not sampler.said and sampler.replays >= 4


@pytest.mark.parametrize("place", ["stages.loop:Loop._copy_in:copy:1", "stages.loop:_copies:copy:1"])
def test_what_is_not_copied_is_missed(place):
    """Control of the test above."""
    with card() as sim:
        expected, _ = pictures_of(replayed=False, stream=True)
        sim.without.add(sites()[place])
        found, _ = pictures_of(stream=True)
    assert sim.skipped and found != expected
