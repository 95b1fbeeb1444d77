"""Rerender-A-Video's sampling (Yang et al. 2023) written out from its equations, and ours: the same latents.

The plain loop knows nothing of rows, levels or windows: DDIM, AdaIN, shape-aware and pixel-aware fusion, attention to
the first frame and the one before. Flows, masks and noises are handed to both.
"""

import math
from typing import NamedTuple

import pytest
import torch
from support.polynomial import conditioned
from torch.nn.functional import conv2d, pixel_shuffle, pixel_unshuffle

from warpfuse.engine.bundle_parts import AttentionLayer, AttentionMemory
from warpfuse.engine.contract import TensorSpec
from warpfuse.stages.diffusion.attention import CrossFrame
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.noise import Noises
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.reference_warp import LatentWarp, PictureWarp
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling
from warpfuse.stages.diffusion.settings import AttentionSettings, FuseSettings
from warpfuse.stages.frame import Frame, Latent, Motion, Stamp
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import level_at, levels

CPU = torch.device("cpu")
C, SIDE, WIDE, STEPS, FRAMES, SEED = 4, 8, 16, 8, 4, 3
SAMPLING = Sampling("epsilon", open_solver("ddim"), lambda t: level_at(levels(), t), 951.0, 151.0, True)
TIMESTEPS = [951, 851, 751, 651, 551, 451, 351, 251]
ABAR = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
OFF = AttentionSettings(own=1, anchor=0, previous=0)
RERENDER = AttentionSettings(own=0, anchor=1, previous=1, pull="off")

SHAPE = {"kind": "latent", "of": "anchor", "window": (850, 1000), "weight": 1, "noise": "model"}
PIXEL = {"kind": "reference", "window": (300, 500), "weight": 0.5, "inner_strength": 0.9, "noise": "slot"}
ADAIN = {"weight": 1, "window": (0, 400)}


class Given(NamedTuple):
    """What is handed in for a frame. Shifts (x, y) are of whole latent cells and stay inside."""

    source: torch.Tensor
    picture: torch.Tensor
    mask: torch.Tensor
    to_anchor: torch.Tensor
    mask_anchor: torch.Tensor


def given(number):
    """Of the first frame nothing is known before it."""
    generator = torch.Generator().manual_seed(100 + number)
    source, picture = torch.randn(2, 1, C, SIDE, SIDE, generator=generator)
    masks = torch.rand(2, 1, 1, SIDE, SIDE, generator=generator) * 0.7 + 0.3
    cells = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy"))[None]
    shifts = (cells + torch.randint(-2, 3, cells.shape, generator=generator)).clamp(0, SIDE - 1) - cells
    return Given(source, picture, *(masks * (number > 0))[:1], shifts, *(masks * (number > 0))[1:])


class Network:
    """A random convolution and a random layer of attention, in float64: e = sigma x + tanh(conv x) + attention."""

    def __init__(self):
        g = torch.Generator().manual_seed(7)
        self.conv, self.into = (torch.randn(n, C, 3, 3, generator=g).double() / 6 for n in (C, WIDE))
        self.q, self.k, self.v = (torch.randn(3, WIDE, WIDE, generator=g).double() / 4).unbind()
        self.out = torch.randn(WIDE, C, generator=g).double() / 16

    def tokens(self, x):
        return conv2d(x, self.into, padding=1).tanh().flatten(2).transpose(1, 2)

    def noise(self, x, t, context, counts):
        """counts: how often each token of the context counts, [1, M]."""
        scores = self.tokens(x) @ self.q @ (context @ self.k).transpose(1, 2) / math.sqrt(WIDE)
        shares = scores.exp() * counts[:, None]
        seen = shares / shares.sum(-1, keepdim=True) @ (context @ self.v) @ self.out
        sigma = (1 - ABAR[t]).sqrt()
        return sigma * x + 0.1 * conv2d(x, self.conv, padding=1).tanh() + seen.transpose(1, 2).view_as(x)


class Engine(Network):
    """The network as an engine that is handed the tokens of earlier frames."""

    inputs = (
        *(TensorSpec(name, "float32", shape) for name, shape in (("x", (None,) * 4), ("timestep", (None,)))),
        TensorSpec("past", "float32", (None, 2, SIDE * SIDE * WIDE)),
        TensorSpec("past_weight", "float32", (None, 2, SIDE, SIDE)),
        TensorSpec("own_weight", "float32", (None, 1)),
    )

    def __call__(self, fed):
        x, own = fed["x"].double(), self.tokens(fed["x"].double())
        past = fed["past"].double().view(1, 2 * SIDE * SIDE, WIDE)
        counts = torch.cat([fed["own_weight"].expand(-1, SIDE * SIDE), fed["past_weight"].flatten(1)], 1)
        output = self.noise(x, int(fed["timestep"]), torch.cat([own, past], 1), counts.double())
        return {"output": output.float(), "kept": own.flatten(1).float()}

    def close(self):
        """Nothing is held."""


class Rerender:
    """The paper's loop over the frames of one shot. Each mechanism is on or off."""

    def __init__(self, *, attention=False, shape=False, pixel=False, adain=False, late=0, unscaled=False):
        self.network = Network()
        self.attention, self.shape, self.pixel, self.adain = attention, shape, pixel, adain
        self.late, self.unscaled = late, unscaled  # the controls
        self.tokens, self.x0, self.noises = {}, {}, Noises(SEED, CPU)

    def frame(self, number, told):
        x = self.noised(told.source.double(), TIMESTEPS[0], 0)
        for i, t in enumerate(TIMESTEPS):
            x = self.step(number, told, i, t, x)
        return x

    def noised(self, x0, t, slot):
        z = self.noises.slot(slot, x0.shape).double()
        return ABAR[t].sqrt() * x0 + (1 - ABAR[t]).sqrt() * z

    def step(self, number, told, i, t, x):
        e = self.network.noise(x, t, *self.context(number, i, x))
        x0 = (x - (1 - ABAR[t]).sqrt() * e) / ABAR[t].sqrt()
        first = self.x0.get(max(0, i - self.late)) if number else None
        if first is None:
            self.x0[i] = x0
        if self.adain and t in (351, 251) and first is not None:
            x0 = (x0 - x0.mean((2, 3), True)) / std(x0) * std(first) + first.mean((2, 3), True)
        if self.shape and t in (951, 851) and first is not None:
            x0 = shifted(first, told.to_anchor) * told.mask_anchor + x0 * (1 - told.mask_anchor)
        if i + 1 == STEPS:
            return x0
        after = TIMESTEPS[i + 1]
        direction = (1 - ABAR[after]).sqrt() * e
        x = ABAR[after].sqrt() * x0 + direction
        if self.pixel and t in (451, 351) and number:
            m = 0.5 * told.mask.double()
            gain = 1 - m if self.unscaled else torch.maximum(1 - m, 0.9 * (1 - m * m).sqrt())
            x = m * self.noised(told.picture.double(), after, i + 1) + (1 - m) * (x - direction) + gain * direction
        return x

    def context(self, number, i, x):
        """The tokens that the frame's attention sees, and how often each counts."""
        own = self.network.tokens(x)
        before, self.tokens[number, i] = self.tokens.get((number - 1, i)), own
        if not self.attention or before is None:
            return own, torch.ones(own.shape[:2])
        seen = torch.cat([self.tokens[0, max(0, i - self.late)], before], 1)
        return seen, torch.ones(seen.shape[:2])


def std(x):
    return x.var((2, 3), keepdim=True, correction=0).sqrt()


def shifted(x, shift):
    """x(p + shift(p))."""
    return x[:, :, torch.arange(SIDE)[:, None] + shift[0, 1], torch.arange(SIDE) + shift[0, 0]]


def plain(**mechanisms):
    loop = Rerender(**mechanisms)
    return [loop.frame(number, given(number)) for number in range(FRAMES)]


def staged(attention=OFF, between="off", adain=None, **options):
    fuse = FuseSettings(weight=0.8, entry=0, between=between, adain=adain or {})
    settings = PredictSettings(
        conditioned(1.0), 1.0, STEPS, fuse, warp=WarpSettings(mode="nearest"), attention=attention
    )
    memory = AttentionMemory(references=2, layers=(AttentionLayer(name="one", rows=SIDE, columns=SIDE, width=WIDE),))
    options = {"pulls": {"latent": LatentWarp()}, "attention": CrossFrame(memory, torch.float32, CPU)} | options
    return Predict(Denoise(Engine(), SAMPLING), SAMPLING, settings, SEED, "cpu", **options)


def large(x):
    return x.repeat_interleave(8, -1).repeat_interleave(8, -2).float()


def fed(number, told):
    """What a stage is called with: motions are in pixels, 8 to a cell."""
    stamp, nothing = Stamp(number, 0), torch.zeros(1, 2, 8 * SIDE, 8 * SIDE)
    return {
        "source": Latent(stamp, told.source),
        "reference": Latent(stamp, told.picture, told.mask) if number else Frame(stamp),
        "motion": Motion(stamp, nothing, torch.full_like(nothing[:, :1], float(number > 0))),
        "anchor": Motion(stamp, 8 * large(told.to_anchor), large(told.mask_anchor)),
    }


def ours(**settings):
    stage = staged(**settings)
    return [stage(**fed(number, given(number))).z for number in range(FRAMES)]


def far(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


MECHANISMS = {
    "attention": {"attention": RERENDER},
    "shape": {"between": [SHAPE]},
    "pixel": {"between": [PIXEL]},
    "adain": {"adain": ADAIN},
}
ALL = {"attention": RERENDER, "between": [SHAPE, PIXEL], "adain": ADAIN}


@pytest.mark.parametrize("name", MECHANISMS)
def test_each_mechanism_alone_is_the_papers(name):
    found = ours(**MECHANISMS[name])
    assert far(found, plain(**{name: True})) < 1e-4
    assert far(found, plain()) > 1e-2, "the control: it does something"


def test_all_together_are_the_papers():
    found = ours(**ALL)
    every = dict.fromkeys(MECHANISMS, True)
    assert far(found, plain(**every)) < 1e-4
    for name in MECHANISMS:
        assert far(found, plain(**every | {name: False})) > 1e-2, f"the control: without {name} it is another"
    assert far(found, plain(**every, late=1)) > 1e-2, "the control: the anchor at the level before"
    assert far(found, plain(**every, unscaled=True)) > 1e-2, "the control: noise that is not rescaled"


def test_without_any_of_it_the_loops_are_one():
    assert far(ours(), plain()) < 1e-4


class Shuffle:
    """An autoencoder without loss: the channels of a cell are 2 x 2 pixels of a picture of one channel; 0.5 is 0."""

    device, calls = "cpu", 0

    def __init__(self, kind):
        self.kind = kind
        self.inputs = (TensorSpec("rgb" if kind == "encoder" else "latent", "float32", (None,) * 4),)

    def __call__(self, fed):
        self.calls += 1
        (x,) = fed.values()
        if self.kind == "encoder":
            return {"latent": pixel_unshuffle(x - 0.5, 2)}
        return {"rgb": pixel_shuffle(x, 2) + 0.5}

    def close(self):
        """Nothing is held."""


def small(number, told):
    """As `fed`, with 2 pixels to a cell."""
    found = fed(number, told)
    for name in ("motion", "anchor"):
        flow, trust = found[name].flow / 4, found[name].trust
        found[name] = Motion(found[name].stamp, flow[..., ::4, ::4], trust[..., ::4, ::4])
    return found


def pictured(window, scale=40.0):
    """Latents, and the networks that were asked. scale: nothing is clipped."""
    networks = Shuffle("decoder"), Shuffle("encoder")
    pulls = {"picture": PictureWarp(*networks, scale), "latent": LatentWarp()}
    stage = staged(between=[window], pulls=pulls)
    return [stage(**small(number, given(number))).z for number in range(FRAMES)], networks


def test_the_anchors_x0_as_a_picture_is_that_of_the_latent():
    """By an autoencoder without loss and shifts of whole cells."""
    window = {"kind": "latent", "of": "anchor", "window": (0, 500)}
    latents, _ = pictured(window)
    pictures, networks = pictured({**window, "kind": "picture"})
    assert far(latents, pictures) < 1e-4
    assert [network.calls for network in networks] == [2 * (FRAMES - 1)] * 2
    assert far(latents, pictured({**window, "weight": 0.0})[0]) > 1e-2, "the control: it is fused"


def test_the_picture_of_the_anchor_is_pulled_once_a_frame():
    """It is the x0 that the anchor was shown with, whatever call it is fused in after."""
    window = {"kind": "reference", "of": "anchor", "window": (300, 500), "noise": "model"}
    found, networks = pictured(window)
    assert [network.calls for network in networks] == [FRAMES - 1] * 2
    assert far(found[1:], pictured({**window, "weight": 0.0})[0][1:]) > 1e-2
    shown = found[0]
    seen = []
    stage = staged(
        between=[{**window, "weight": 1}], pulls={"picture": lambda x0, motions, mode: seen.extend(x0) or x0}
    )
    for number in range(2):
        stage(**small(number, given(number)))
    assert torch.equal(seen[0], shown)
