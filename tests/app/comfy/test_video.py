"""A video through a network of ComfyUI is what a Pipeline makes of it with the same network."""

import gc

import pytest
import torch

import warpfuse
from warpfuse.comfy.motion import flow_of
from warpfuse.comfy.video import VideoFusion, hints, restyle
from warpfuse.engine.errors import BadInput
from warpfuse.stages.diffusion.noise import Noises
from warpfuse.stages.solvers.levels import level_at, levels

NOISES = Noises(0, torch.device("cpu"))
LEVEL = level_at(levels(), 600.0)


class Exact:
    """The latent is the picture, rearranged; sampling gives its negative, or the noisy latent it started from."""

    cells = 8

    def __init__(self, style="negative"):
        self.style = style
        self.cuts = []

    def encode(self, rgb):
        _, _, height, width = rgb.shape
        cells = rgb.reshape(1, 3, height // 8, 8, width // 8, 8)
        return cells.permute(0, 3, 5, 1, 2, 4).reshape(1, 192, height // 8, width // 8)

    def decode(self, latent):
        _, _, h, w = latent.shape
        return latent.reshape(1, 8, 8, 3, h, w).permute(0, 3, 4, 1, 5, 2).reshape(1, 3, 8 * h, 8 * w)

    def sample(self, latent, frame, cut):
        self.cuts.append(cut)
        if self.style == "noisy":
            return LEVEL.alpha * latent + LEVEL.sigma * NOISES.slot(0, latent.shape)
        return 1 - latent


def quiet(done, rgb):
    """Nobody looks."""


def styled(images, networks=None, fusion=VideoFusion(), motion=None):  # noqa: B008  (frozen)
    motion = flow_of(images, "balanced", 384, quiet) if motion is None else motion
    return restyle(images, motion, networks or Exact(), fusion, quiet)[0]


@pytest.mark.parametrize("style, entry", [("negative", 0.0), ("noisy", 1.0)])
@pytest.mark.parametrize("fusion", [0.0, 0.8])
def test_it_is_what_a_pipeline_makes_of_it(exact_bundle, clip, style, entry, fusion):
    """Entry, exit, warp and locks alike. The bundle's negative is of the source, whatever was fused in at the entry."""
    out = styled(clip, Exact(style), VideoFusion(fusion, entry))
    keys = {"bundle": exact_bundle, "fusion": fusion, "stages": {"fuse": {"entry": entry}}}
    with warpfuse.Pipeline(prompt=style, size=(80, 64), **keys) as pipeline:
        expected = [pipeline.push((image * 255).round().to(torch.uint8).numpy()) for image in clip]
    expected = torch.stack([torch.from_numpy(rgb) for rgb in expected])
    assert ((out * 255).round() - expected).abs().max() <= 1
    if fusion:
        assert (styled(clip, Exact(style), VideoFusion(0.0)) - out)[1:].abs().amax(dim=(1, 2, 3)).min() > 0.02


def test_without_fusion_every_frame_is_sampled_alone_to_the_bit(clip):
    assert torch.equal(styled(clip, fusion=VideoFusion(0.0)), 1 - clip)


def test_a_cut_has_no_past(clip):
    """Dark pictures of other colours after two frames: frame 2 is sampled as if it were the first, to the bit."""
    other = 0.3 * torch.rand(1, 64, 80, 3, generator=torch.Generator().manual_seed(5))
    images = torch.cat((clip[:2], other, other))
    networks = Exact("noisy")
    out = styled(images, networks)
    alone = styled(images, Exact("noisy"), VideoFusion(0.0))
    assert networks.cuts == [True, False, True, False]
    assert [torch.equal(a, b) for a, b in zip(out, alone, strict=True)] == [True, False, True, False]
    assert torch.equal(out[2:], styled(images[2:], Exact("noisy")))


@pytest.mark.parametrize("height, width", [(64, 80), (61, 77), (17, 30)])
def test_pictures_of_any_size_come_back_at_their_own(height, width):
    images = torch.rand(3, height, width, 3, generator=torch.Generator().manual_seed(1))
    motion = flow_of(images, "fast", None, quiet)
    out, latents = restyle(images, motion, Exact(), VideoFusion(0.0), quiet)
    assert torch.equal(out, 1 - images)
    assert latents.shape == (3, 192, -(-height // 8), -(-width // 8))


def tensors():
    gc.collect()
    return sum(1 for one in gc.get_objects() if issubclass(type(one), torch.Tensor))


@pytest.mark.parametrize("keeps", [False, True], ids=["as it is", "control"])
def test_memory_is_flat_over_300_frames(keeps):
    images = torch.rand(300, 16, 24, 3, generator=torch.Generator().manual_seed(1))
    motion = {"flow": torch.zeros(300, 2, 16, 24), "trust": torch.ones(300, 1, 16, 24)}
    motion["trust"][0] = 0
    found, kept = {}, []

    def each(done, rgb):
        if keeps:
            kept.append(torch.from_numpy(rgb))
        if done in (50, 290):
            found[done] = tensors()

    restyle(images, motion, Exact("noisy"), VideoFusion(), each)
    assert (found[290] - found[50] >= 240) if keeps else (found[290] <= found[50] + 2)


def test_what_it_is_interrupted_by_ends_the_run(clip):
    class Interrupted(Exception):
        pass

    def each(done, rgb):
        if done == 2:
            raise Interrupted

    networks = Exact()
    with pytest.raises(Interrupted):
        restyle(clip, flow_of(clip, "fast", None, quiet), networks, VideoFusion(), each)
    assert len(networks.cuts) == 2


def test_a_control_image_belongs_to_each_frame(clip):
    found = hints("net", 1 - clip, clip, 8)
    assert len(found) == 5 and torch.equal(found[3], (1 - clip[3]).permute(2, 0, 1)[None])
    odd = hints("net", torch.rand(5, 61, 77, 3), torch.rand(5, 61, 77, 3), 8)
    assert odd[0].shape == (1, 3, 64, 80)
    assert hints(None, None, clip, 8) is None
    with pytest.raises(BadInput, match="expected one for each of the 5 frames, got 3"):
        hints("net", clip[:3], clip, 8)
    for given in ((None, clip), ("net", None)):
        with pytest.raises(BadInput, match="takes both control_net and control_images"):
            hints(*given, clip, 8)


def test_motion_of_another_clip_is_refused(clip):
    with pytest.raises(BadInput, match="the motion is of 3 frames"):
        styled(clip, motion=flow_of(clip[:3], "fast", None, quiet))
