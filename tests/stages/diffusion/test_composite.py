"""Paint, inks and lines to a picture: what is laid over what, and when the network is asked."""

import numpy as np
import torch

from warpfuse.engine.bundle_parts import Style
from warpfuse.stages.cpu import as_sharp_as, cored
from warpfuse.stages.diffusion.composite import Composite, CompositeSettings
from warpfuse.stages.diffusion.palette import SIDE, palette_of
from warpfuse.stages.diffusion.settings import FuseSettings
from warpfuse.stages.frame import Frame, Latent, Picture, Stamp

TABLES = {"both": np.random.default_rng(0).random((SIDE, SIDE, SIDE, 3), np.float32)}
STYLES = {
    "both": Style(vector=(1.0, 0.0, 0.0), ink=(0.1, 0.2, 0.3), lines=0.8, lut="both.lut"),
    "lines": Style(vector=(0.0, 1.0, 0.0), ink=(0.9, 0.2, 0.3)),
    "none": Style(vector=(0.0, 0.0, 1.0), lines=0.0),
}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Lines:
    """A network that gives the cover it was made with, and counts."""

    def __init__(self, cover):
        self.cover, self.fed, self.closed = cover, [], False

    def __call__(self, feed):
        self.fed.append(feed)
        return {"cover": self.cover}

    def close(self):
        self.closed = True


def settings(style="both", strength=1.0, **fuse):
    palette = palette_of(STYLES, {style: 1.0}, TABLES)
    return CompositeSettings(torch.tensor([STYLES[style].vector]), palette, strength, FuseSettings(**fuse))


def frames(size=(24, 40), **stamp):
    at = Stamp(seq=0, pts_ns=0, **stamp)
    paint, source = Picture(at, random(1, 3, *size)), Picture(at, random(1, 3, *size, seed=1))
    return paint, Latent(at, random(1, 4, size[0] // 8, size[1] // 8)), source


def test_at_strength_0_the_paint_is_shown_to_the_bit_and_nothing_is_drawn():
    network = Lines(random(1, 1, 24, 40))
    paint, latent, source = frames()
    out = Composite(network, settings(strength=0.0))(paint, latent, source)
    assert torch.equal(out.rgb, paint.rgb) and not network.fed


def test_a_style_without_lines_does_not_ask_for_them():
    network = Lines(random(1, 1, 24, 40))
    stage = Composite(network, settings("none"))
    paint, latent, source = frames()
    out = stage(paint, latent, source)
    assert torch.equal(out.rgb, paint.rgb) and out.cover is None and not network.fed
    stage.update(settings("lines"))
    assert stage(paint, latent, source).cover is not None
    (fed,) = network.fed
    assert fed["rgb"] is source.rgb and fed["style"].tolist() == [[0.0, 1.0, 0.0]]


def test_the_cover_of_the_frame_before_is_fused_where_it_is_trusted():
    fresh, before = random(1, 1, 24, 40), random(1, 1, 24, 40, seed=3)
    trust = (random(1, 1, 24, 40, seed=4) > 0.5).float()
    paint, latent, source = frames()
    past = Picture(paint.stamp, paint.rgb, cover=before, trust=trust)
    out = Composite(Lines(fresh), settings(weight=0.8, lines=0.5, coring=0.0))(paint, latent, source, past)
    w = 0.8 * 0.5 * trust
    torch.testing.assert_close(out.cover, as_sharp_as(fresh, w * before + (1 - w) * fresh))
    alone = Composite(Lines(fresh), settings(weight=0.8, lines=0.0, coring=0.0))(paint, latent, source, past)
    assert torch.equal(alone.cover, fresh)


def test_small_changes_of_paint_and_cover_are_fused_once_more():
    fresh, before, trust = random(1, 1, 24, 40), random(1, 1, 24, 40, seed=3), random(1, 1, 24, 40, seed=4)
    paint, latent, source = frames()
    past = Picture(paint.stamp, paint.rgb + 0.03 * (random(1, 3, 24, 40, seed=6) - 0.5), cover=before, trust=trust)
    out = Composite(Lines(fresh), settings(weight=0.5, lines=0.4, coring=0.01))(paint, latent, source, past)
    numbers, w = torch.tensor([0.5, 0.01]), 0.5 * 0.4 * trust
    torch.testing.assert_close(out.paint, cored(paint.rgb, past.rgb, trust, numbers))
    fused = cored(w * before + (1 - w) * fresh, before, trust, numbers)
    torch.testing.assert_close(out.cover, as_sharp_as(fresh, fused))
    for off in ({"weight": 0.0}, {"coring": 0.0}):
        assert torch.equal(Composite(Lines(fresh), settings(**off))(paint, latent, source, past).paint, paint.rgb)


def test_what_comes_back_is_the_paint_not_the_picture():
    paint, latent, source = frames()
    out = Composite(Lines(random(1, 1, 24, 40)), settings())(paint, latent, source)
    assert out.paint is paint.rgb and not torch.equal(out.rgb, out.paint)


def test_a_held_frame_shows_the_cover_it_was_given():
    network = Lines(random(1, 1, 24, 40))
    paint, latent, source = frames(hold="warp")
    past = Picture(paint.stamp, paint.rgb, cover=random(1, 1, 24, 40, seed=5))
    out = Composite(network, settings()).held(paint, Frame(paint.stamp), source, past)
    assert torch.equal(out.cover, past.cover) and not network.fed
    assert not Composite(network, settings()).held(Frame(paint.stamp), latent, source).tensors


def test_the_network_is_closed_with_the_stage():
    network = Lines(random(1, 1, 8, 8))
    Composite(network, settings()).close()
    assert network.closed
