"""The sampling nodes between ComfyUI's model, autoencoder and ControlNet, of which each is a few lines here."""

from types import SimpleNamespace

import pytest
import torch
from support.comfy_denoisers import SIGMAS, denoised, noise

from warpfuse.engine.errors import BadInput

SETTINGS = {"solver": "auto", "noise": "model", "weight": 0.8, "exit": 0.8, "reference": "previous"}
WHOLE = {"start_percent": 0.0, "end_percent": 1.0}


class Vae:
    """Eight pixels a cell, their means and the rest of nothing; decoded as squares."""

    def spacial_compression_encode(self):
        return 8

    def encode(self, pixels):
        return torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)

    def decode(self, latent):
        return torch.nn.functional.interpolate(latent, scale_factor=8.0, mode="nearest").movedim(1, -1)


class Model:
    """A ModelPatcher: what it was patched with, and a network of a given kind."""

    def __init__(self, flow, patches=()):
        import comfy.model_sampling as kinds

        kind = kinds.CONST if flow else kinds.EPS
        percent = lambda _, share: (1.0 if flow else 999999999.9) * (share == 0)  # noqa: E731
        self.flow, self.patches = flow, list(patches)
        self.model = SimpleNamespace(model_sampling=type("Sampling", (kind,), {"percent_to_sigma": percent})())

    def clone(self):
        return Model(self.flow, self.patches)

    def set_model_attn1_patch(self, patch):
        self.patches.append(patch)


@pytest.fixture
def comfy_samples(runtime, monkeypatch):
    """`comfy.sample.sample_custom` as ComfyUI's: makes noisy, asks the sampler. Returns what it was called with."""
    import comfy.sample

    calls = []

    def sample_custom(model, noise, cfg, sampler, sigmas, positive, negative, latent_image, **more):
        sigma = float(sigmas[0])
        x = ((1 - sigma) if model.flow else 1.0) * latent_image + sigma * noise
        calls.append({"positive": positive, "negative": negative, "latent": latent_image, "model": model, **more})
        network = lambda x, sigma, **_: denoised(x, float(sigma[0]))  # noqa: E731
        ends = SimpleNamespace(inner_model=SimpleNamespace(inner_model=model.model))
        inner = type("Guided", (), {"inner_model": ends.inner_model, "__call__": lambda _, *a, **k: network(*a, **k)})()
        return sampler.sampler_function(inner, x, sigmas, extra_args={"seed": more["seed"]})

    monkeypatch.setattr(comfy.sample, "sample_custom", sample_custom)
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda latent, seed: noise(*latent.shape, seed=seed))
    return calls


@pytest.fixture
def inputs(run):
    """What both nodes are given; `more` on top."""

    def given(flow=False, **more):
        sampler = run("WarpfuseSampler", **SETTINGS, **WHOLE)[0]
        rest = {"fusion": 0.8, "entry": 1.0, "exit": 1.0, "cross_frame": "off", "cfg": 7.0, "seed": 3}
        conditioning = {"positive": [["p", {"pooled": 1}]], "negative": [["n", {}]]}
        sigmas = torch.tensor(SIGMAS[flow][1:])
        return {
            "model": Model(flow),
            "vae": Vae(),
            "sampler": sampler,
            "sigmas": sigmas,
            **conditioning,
            **rest,
            **more,
        }

    return given


@pytest.mark.parametrize("flow", [False, True], ids=["epsilon", "flow"])
def test_a_video_without_fusion_is_the_sampler_on_each_frame(run, comfy_samples, inputs, clip, flow):
    import comfy.sample

    given = inputs(flow, fusion=0.0)
    out, latents = run("WarpfuseVideoSampler", images=clip, **given)
    for i, image in enumerate(clip):
        z = Vae().encode(image[None])
        shared = given["model"], noise(*z.shape, seed=3), 7.0, given["sampler"], given["sigmas"]
        alone = comfy.sample.sample_custom(*shared, given["positive"], given["negative"], z, seed=3)
        assert torch.equal(latents["samples"][i], alone[0])
        assert torch.equal(out[i], Vae().decode(alone)[0].clamp(0, 1))
    fused, _ = run("WarpfuseVideoSampler", images=clip, **{**given, "fusion": 0.8})
    assert torch.equal(fused[0], out[0]) and (fused[1:] - out[1:]).abs().max() > 1e-3


def test_the_sampler_takes_comfyuis_sigmas_and_tells_every_call(run, runtime):
    sampler = run("WarpfuseSampler", **{**SETTINGS, "solver": "heun"}, **WHOLE)[0]
    told, model = [], Model(False)
    network = type("Guided", (), {"__call__": lambda _, x, sigma, **more: denoised(x, float(sigma[0]))})()
    network.inner_model = SimpleNamespace(inner_model=model.model)
    x, sigmas = noise(2, 4, 6, 8), torch.tensor(SIGMAS[False])
    out = sampler.sampler_function(network, x, sigmas, extra_args={"seed": 1}, callback=told.append)
    assert out.shape == x.shape and [one["i"] for one in told] == [0, 1, 2, 3, 3, 3, 3][: len(told)] and len(told) == 7
    assert {"x", "denoised", "i"} <= told[0].keys()


def test_motion_is_worked_out_where_none_is_given(run, comfy_samples, inputs, clip):
    motion = run("WarpfuseFlow", images=clip, preset="balanced", long_side=384)[0]
    with_it = run("WarpfuseVideoSampler", images=clip, motion=motion, **inputs())[0]
    assert torch.equal(run("WarpfuseVideoSampler", images=clip, **inputs())[0], with_it)


class ControlNet:
    """ComfyUI's, as far as it is called."""

    hint = None

    def copy(self):
        return ControlNet()

    def set_cond_hint(self, hint, strength, window, vae=None):
        self.hint, self.strength, self.window, self.vae = hint, strength, window, vae
        return self

    def set_previous_controlnet(self, earlier):
        self.earlier = earlier


def test_each_frame_is_controlled_by_its_own_image(run, comfy_samples, inputs, clip):
    net, earlier = ControlNet(), object()
    control = {"control_net": net, "control_images": 1 - clip, "control_strength": 0.6, "control_end": 0.5}
    given = inputs(positive=[["p", {"control": earlier}]], negative=[["n", {"control": earlier}]])
    run("WarpfuseVideoSampler", images=clip, **given, **control)
    assert len(comfy_samples) == 5 and net.hint is None, "the ControlNet that was given stays as it was"
    for i, call in enumerate(comfy_samples):
        used = call["positive"][0][1]["control"]
        assert torch.equal(used.hint, (1 - clip[i]).permute(2, 0, 1)[None])
        assert (used.strength, used.window, used.earlier) == (0.6, (0.0, 0.5), earlier)
        assert call["negative"][0][1]["control"] is used, "one for both, so that ComfyUI can put them into one batch"
        assert call["positive"][0][1]["control_apply_to_uncond"] is False
    assert given["positive"] == [["p", {"control": earlier}]], "the conditioning that was given stays as it was"


def test_control_images_of_another_clip_are_refused(run, comfy_samples, inputs, clip):
    with pytest.raises(BadInput, match="expected one for each of the 5 frames, got 2"):
        run("WarpfuseVideoSampler", images=clip, control_net=ControlNet(), control_images=clip[:2], **inputs())


def test_frames_see_one_another_by_a_patch_of_a_clone(run, comfy_samples, inputs, clip):
    given = inputs(cross_frame="anchor+previous")
    run("WarpfuseVideoSampler", images=clip, **given)
    assert given["model"].patches == []
    (patch,) = {id(patch): patch for call in comfy_samples for patch in call["model"].patches}.values()
    assert patch.anchored
    run("WarpfuseVideoSampler", images=clip, **inputs())
    assert comfy_samples[-1]["model"].patches == []


def test_an_interruption_ends_the_video(run, runtime, comfy_samples, inputs, clip):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        motion = {"flow": torch.zeros(5, 2, 64, 80), "trust": torch.zeros(5, 1, 64, 80)}
        run("WarpfuseVideoSampler", images=clip, motion=motion, **inputs())
    assert len(comfy_samples) == 1
