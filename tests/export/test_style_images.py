"""IP-Adapters in the UNet's file: what diffusers gives, exactly off, rows and images apart."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
import torch
from support.random_checkpoint import write_random_checkpoint
from support.random_controls import write_controlnet
from support.random_images import TOKENS, adapter_tensors, write_adapter

from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.bundle import Bundle, load_bundle
from warpfuse.engine.tensorrt_build import plan_key
from warpfuse.engine.tensorrt_module import TENSORRT_RTX, not_installed
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.control_files import ControlSource
from warpfuse.export.diffusion.image_files import ImageSource
from warpfuse.export.targets import Targets
from warpfuse.export.torch_program import run_program

SIZE, ROWS = (96, 64), 2
KINDS = {"look": ("plain", 6), "mood": ("plus", 8), "face": ("full", 9)}  # name -> kind, seed


@dataclass(frozen=True)
class Sources:
    """A checkpoint, and the files of its IP-Adapters by name."""

    checkpoint: Path
    files: dict[str, Path] = field(default_factory=dict)
    bundles: dict[tuple[str, ...], Bundle] = field(default_factory=dict)

    def asked(self, *names):
        return [ImageSource(name, str(self.files[name])) for name in names]


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Family -> its `Sources`, when first asked for."""
    folder, known = tmp_path_factory.mktemp("images"), {}

    def of(family):
        if family not in known:
            source = write_random_checkpoint(folder / family, family)
            files = {name: write_adapter(folder / f"{family}-{name}", source, *KINDS[name]) for name in KINDS}
            known[family] = Sources(source, files)
        return known[family]

    return of


def exported(sources, folder, *names, **changes):
    request = Request(**{"size": SIZE, "steps": ROWS, "dtype": "fp32", "images": sources.asked(*names), **changes})
    return load_bundle(str(export_checkpoint(folder, open_checkpoint(str(sources.checkpoint)), request).folder))


def in_single(sources, *names):
    """The bundle in single precision, exported when first asked for."""
    if names not in sources.bundles:
        folder = sources.checkpoint.with_name(f"{sources.checkpoint.name}-exported-{len(sources.bundles)}")
        sources.bundles[names] = exported(sources, folder, *names)
    return sources.bundles[names]


def picture(bundle, place, seed=0):
    """[1, 3, S, S] in [0, 1]."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, bundle.about.images[place].size, mode="bicubic").clamp(0, 1)


def tokens_of(bundle, seed=0):
    """[1, T, d] of another picture for each image, and of no picture."""
    given, none = [], []
    for place, image in enumerate(bundle.about.images):
        network = ort.InferenceSession(bundle.network(f"image_{image.network}"))
        names = [one.name for one in network.get_outputs()]
        told = dict(zip(names, network.run(None, {"rgb": picture(bundle, place, seed + place).numpy()}), strict=True))
        given.append(told[f"tokens_{place}"])
        none.append(told[f"none_{place}"])
    return np.concatenate(given, 1), np.concatenate(none, 1)


def fed(bundle, scales, seed=0):
    """A feed of the UNet, by name. scales: of each image, a number for each row."""
    random = np.random.default_rng(seed)
    feed = {}
    for one in ort.InferenceSession(bundle.network("unet")).get_inputs():
        feed[one.name] = random.standard_normal(one.shape).astype(np.float16 if "float16" in one.type else np.float32)
    feed["timestep"] = np.array([801.0, 33.0], np.float32)[: feed["x"].shape[0]]
    if scales:
        feed["image_tokens"] = np.repeat(tokens_of(bundle)[0], feed["x"].shape[0], 0)
        feed["image_scale"] = np.array([np.repeat([one[row] for one in scales.values()], 3)
                                        for row in range(feed["x"].shape[0])], np.float32)  # fmt: skip
    return feed


def run(bundle, feed):
    network = ort.InferenceSession(bundle.network("unet"))
    names = {one.name for one in network.get_inputs()}
    return network.run(None, {name: value for name, value in feed.items() if name in names})[0]


def loaded(sources, names):
    """diffusers' UNet with its own layers for these IP-Adapters."""
    unet = open_checkpoint(str(sources.checkpoint)).unet
    parts = []
    for name in names:
        tensors = adapter_tensors(sources.checkpoint, *KINDS[name])
        parts.append({
            part: {key.removeprefix(f"{part}."): tensor for key, tensor in tensors.items() if key.startswith(part)}
            for part in ("image_proj", "ip_adapter")
        })  # fmt: skip
    unet._load_ip_adapter_weights(parts, low_cpu_mem_usage=False)
    return unet


def reference(sources, bundle, feed, scales, seed=0):
    """What diffusers' UNet gives, its own encoder and projections before it; a row at a time."""
    from transformers import CLIPVisionModelWithProjection

    unet = loaded(sources, scales)
    clip = torch.tensor([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])
    embeds = []
    with torch.no_grad():
        for place, (name, projection) in enumerate(
            zip(scales, unet.encoder_hid_proj.image_projection_layers, strict=True)
        ):
            encoder = CLIPVisionModelWithProjection.from_pretrained(sources.files[name].parent / "image_encoder").eval()
            mean, deviation = clip.view(2, 1, 3, 1, 1)
            told = encoder((picture(bundle, place, seed + place) - mean) / deviation, output_hidden_states=True)
            pooled = type(projection).__name__ == "ImageProjection"
            # axis 1 is the number of pictures, as their pipelines have it
            embeds.append((told.image_embeds if pooled else told.hidden_states[-2])[:, None])
        tensors = {name: torch.from_numpy(value).float() for name, value in feed.items()}
        rows = []
        for row in range(feed["x"].shape[0]):
            for processor in unet.attn_processors.values():
                if hasattr(processor, "scale"):
                    processor.scale = [scales[name][row] for name in scales]
            told = {name: tensor[row : row + 1] for name, tensor in tensors.items()}
            added = {"text_embeds": told["pooled"], "time_ids": told["time_ids"]} if "pooled" in told else {}
            rows.append(unet(told["x"], told["timestep"], told["context"], return_dict=False,
                             added_cond_kwargs={**added, "image_embeds": embeds})[0])  # fmt: skip
    return torch.cat(rows).numpy()


def off(a, b):
    return float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())


EVERY = [("look",), ("mood",), ("face",), ("look", "mood")]


@pytest.mark.parametrize("names", EVERY, ids="+".join)
@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_the_networks_compute_what_diffusers_does_each_row_at_its_scales(family, names, sources):
    bundle = in_single(sources(family), *names)
    scales = {name: (0.7 - 0.2 * place, 1.0) for place, name in enumerate(names)}
    feed = fed(bundle, scales)
    wanted = reference(sources(family), bundle, feed, scales)
    assert off(run(bundle, feed), wanted) < 1e-4
    assert [(one.name, one.tokens) for one in bundle.about.images] == [(name, TOKENS[KINDS[name][0]]) for name in names]
    assert off(run(bundle, {**feed, "image_tokens": -feed["image_tokens"]}), wanted) > 1e-2, "the control: other tokens"


@pytest.mark.parametrize("family", ["sd15", "sd21", "sd-turbo", "sdxl", "lcm"])
def test_at_scale_0_it_is_the_network_without_to_the_bit(family, sources):
    plain = in_single(sources(family))
    bundle = in_single(sources(family), "look", "mood")
    feed = fed(bundle, {"look": (0.0, 0.0), "mood": (0.0, 0.0)})
    wanted = run(plain, feed)
    assert np.array_equal(run(bundle, feed), wanted)
    assert plain.about.images == () and not any("image" in name for name in plain.about.networks)
    for column in (0, 3):
        scale = np.zeros_like(feed["image_scale"])
        scale[:, column : column + 3] = 1
        assert off(run(bundle, {**feed, "image_scale": scale}), wanted) > 1e-2, "the control: each does something"


def test_a_row_at_scale_0_is_untouched_by_what_another_row_is_given(sources):
    bundle = in_single(sources("sd15"), "look")
    feed = fed(bundle, {"look": (0.0, 0.9)})
    plain = run(in_single(sources("sd15")), feed)
    assert np.array_equal(run(bundle, feed)[0], plain[0])
    feed["image_tokens"][1] *= 100
    assert np.array_equal(run(bundle, feed)[0], plain[0])
    assert off(run(bundle, feed)[1], plain[1]) > 1e-2, "the control: its own row has them"


def test_layers_of_style_and_layout_are_those_that_diffusers_names(sources):
    """Against its scales by block, which its documents have for InstantStyle."""
    cases = {
        "sdxl": {"style": {"up": {"block_0": [0.0, 1.0]}}},
        "sd15": {"style": {"up": {"block_1": [1.0, 1.0]}}, "layout": {"down": {"block_2": [1.0]}, "mid": 1.0}},
    }
    for family, groups in cases.items():
        bundle = in_single(sources(family), "look")
        feed = fed(bundle, {"look": (1.0, 1.0)})
        for column, group in enumerate(("style", "layout")):
            if group not in groups:
                continue
            feed["image_scale"][:] = 0
            feed["image_scale"][:, column] = 1
            wanted = reference_by_block(sources(family), bundle, feed, groups[group])
            assert off(run(bundle, feed), wanted) < 1e-4, (family, group)


def reference_by_block(sources, bundle, feed, scales):
    """The same as `reference` of "look", with diffusers' scales by block."""
    from diffusers.loaders import IPAdapterMixin

    unet = loaded(sources, ["look"])
    tokens = torch.from_numpy(feed["image_tokens"])
    IPAdapterMixin.set_ip_adapter_scale(SimpleNamespace(unet=unet, unet_name="unet"), scales)
    unet.encoder_hid_proj = None
    unet.config.encoder_hid_dim_type = None
    tensors = {name: torch.from_numpy(value) for name, value in feed.items()}
    added = {
        name: tensors[ours] for name, ours in (("text_embeds", "pooled"), ("time_ids", "time_ids")) if ours in feed
    }
    with torch.no_grad():
        context = (tensors["context"], [tokens])
        found = unet(tensors["x"], tensors["timestep"], context, return_dict=False, added_cond_kwargs=added)[0]
    return found.numpy()


def test_images_of_one_encoder_share_its_network(sources, tmp_path):
    known = sources("sd15")
    encoder = str(known.files["look"].parent / "image_encoder")
    asked = [ImageSource("look", str(known.files["look"])), ImageSource("mood", str(known.files["mood"]), encoder)]
    together = exported(known, tmp_path / "together", images=asked)
    apart = in_single(known, "look", "mood")
    assert [image.network for image in together.about.images] == [0, 0]
    assert [image.network for image in apart.about.images] == [0, 1]
    for ours, theirs in zip(tokens_of(together), tokens_of(apart), strict=True):
        assert off(ours, theirs) < 1e-5


def test_torch_is_to_the_bit_too(sources):
    from warpfuse.export.diffusion.image_files import open_images
    from warpfuse.export.diffusion.image_prompt import pictured
    from warpfuse.export.diffusion.networks import UNet

    checkpoint = open_checkpoint(str(sources("sd15").checkpoint))
    plain = UNet(copy.deepcopy(checkpoint.unet))
    images = open_images(checkpoint, sources("sd15").asked("look", "mood"))
    tokens = {}
    for number, encoder in enumerate(images.encoders):
        tokens |= dict(zip(images.outputs(number), encoder(torch.rand(1, 3, 56, 56)), strict=True))
    network = pictured(checkpoint.unet, UNet(checkpoint.unet), images, xl=False)
    random = torch.Generator().manual_seed(0)
    own = (torch.randn(ROWS, 4, 8, 12, generator=random), torch.tensor([801.0, 33.0]),
           torch.randn(ROWS, 77, 32, generator=random))  # fmt: skip
    inputs = images.typical(tokens, ROWS)
    with torch.no_grad():
        on = network(*own, *inputs.values())
        assert torch.equal(network(*own, inputs["image_tokens"], 0 * inputs["image_scale"]), plain(*own))
        assert (on - plain(*own)).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_in_half_precision_it_is_near(family, sources, tmp_path):
    bundle = exported(sources(family), tmp_path / "half", "look", "mood", dtype="fp16")
    scales = {"look": (0.7, 1.0), "mood": (0.4, 0.0)}
    feed = fed(bundle, scales)
    assert off(run(bundle, feed), reference(sources(family), bundle, feed, scales)) < 0.05


@pytest.mark.parametrize("dtype, most", [("fp32", 1e-4), ("bf16", 0.1)])
def test_programs_of_torch_give_the_same(sources, tmp_path, dtype, most):
    targets = Targets(("onnx", "torch"))
    bundle = exported(sources("sd15"), tmp_path / "bundle", "look", "mood", dtype=dtype, targets=targets)
    scales = {"look": (0.7, 1.0), "mood": (0.4, 0.0)}
    # Not of a bundle in bfloat16, which this runtime does not compute on a CPU.
    wide = bundle if dtype != "bf16" else in_single(sources("sd15"), "look", "mood")
    feed = fed(wide, scales)
    start = 0
    for place, image in enumerate(bundle.about.images):
        program = bundle.network(f"image_{image.network}").with_suffix(".pt2")
        given = run_program(program, {"rgb": picture(bundle, place, place)})[f"tokens_{place}"]
        assert off(given.numpy(), feed["image_tokens"][:1, start : start + image.tokens]) < most
        start += image.tokens
    found = run_program(bundle.network("unet").with_suffix(".pt2"), {n: torch.from_numpy(v) for n, v in feed.items()})
    assert off(found["output"].numpy(), reference(sources("sd15"), wide, feed, scales)) < most


def test_a_plan_for_a_card_is_built_of_it(sources, tmp_path):
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    targets = Targets(("onnx", "tensorrt-rtx"), ("sm89",))
    bundle = exported(sources("sd15"), tmp_path / "bundle", "look", "mood", dtype="fp16", steps=1, targets=targets)
    for kind in ("unet", "image_0", "image_1"):
        key = plan_key(TENSORRT_RTX, bundle.network(kind), None, "sm89")
        assert ArtifactCache(bundle.folder / "plans").find(key) is not None, kind


def test_attention_controls_live_loras_and_images_go_together(lora_bundles, tmp_path):
    from support import lora_bundles as make

    source = lora_bundles.source
    known = Sources(source, {"look": write_adapter(tmp_path / "look", source)})
    controls = [ControlSource("edges", "controlnet", str(write_controlnet(tmp_path / "edges", source)))]
    loras = [make.Lora(path) for path in lora_bundles.files.values()]
    live = exported(known, tmp_path / "live", "look", loras=loras, live=True, attention="up", controls=controls)
    merged = [make.Lora(lora_bundles.files[name], scale) for name, scale in make.MERGED_AT.items()]
    other = exported(known, tmp_path / "merged", "look", loras=merged)
    feed = fed(live, {"look": (0.7, 0.4)})
    off_ = {
        "past_weight": np.zeros_like(feed["past_weight"]), "own_weight": np.ones_like(feed["own_weight"]),
        "control_scale": np.zeros_like(feed["control_scale"]),
    }  # fmt: skip
    feed["lora_scale"][:] = list(make.MERGED_AT.values())
    assert off(run(live, {**feed, **off_}), run(other, feed)) < 1e-4
    plain = exported(Sources(source), tmp_path / "plain")
    zero = {**feed, **off_, "lora_scale": 0 * feed["lora_scale"], "image_scale": 0 * feed["image_scale"]}
    assert np.array_equal(run(live, zero), run(plain, zero))
    for name in ("image_scale", "control_scale", "past_weight"):
        value = np.abs(feed[name]).clip(0, 1)
        assert off(run(live, {**zero, name: value}), run(plain, zero)) > 1e-3, name


def test_room_is_asked_for_the_new_networks_too(sources, tmp_path, monkeypatch):
    from transformers import CLIPVisionModelWithProjection

    from warpfuse.export.diffusion import bundle as module

    asked = []

    def noted(folder, networks, targets):
        asked.append(sum(parameters for parameters, _ in networks.values()))

    monkeypatch.setattr(module, "check_room", noted)
    for number, names in enumerate(((), ("look",))):
        exported(sources("sd15"), tmp_path / str(number), *names)
    encoder = CLIPVisionModelWithProjection.from_pretrained(sources("sd15").files["look"].parent / "image_encoder")
    tensors = adapter_tensors(sources("sd15").checkpoint, *KINDS["look"])
    whole = sum(p.numel() for p in encoder.parameters()) + sum(tensor.numel() for tensor in tensors.values())
    assert np.diff(asked).tolist() == [whole]
