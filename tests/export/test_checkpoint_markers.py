"""What a single file says of itself is believed, told, or asked for; what else circulates is read, or named."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.original_layout import original_vae, single_file
from support.random_checkpoint import write_random_checkpoint

from warpfuse.export.diffusion.autoencoders import choose_vae, overflows
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.families import WORKING
from warpfuse.export.diffusion.markers import UNET, Markers, family_in, predicting, prediction_in
from warpfuse.export.diffusion.networks import text_network
from warpfuse.export.diffusion.schedule import sampler_of
from warpfuse.export.diffusion.single_file import read_single_file
from warpfuse.export.onnx_writing import ExportError

XL = "conditioner.embedders.1.model.ln_final.weight"
SD2 = "cond_stage_model.model.ln_final.weight"
SD1 = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
OLD = "cond_stage_model.transformer.final_layer_norm.weight"


def markers(*names, metadata=None, channels=4):
    shapes = dict.fromkeys(names, (1,)) | {f"{UNET}input_blocks.0.0.weight": (320, channels, 3, 3)}
    return Markers("a.safetensors", shapes, metadata or {})


@pytest.mark.parametrize(
    "names, metadata, family, prediction",
    [
        ((XL,), {}, "sdxl", "epsilon"),
        ((XL, "v_pred"), {}, "sdxl", "v"),
        ((XL, "v_pred", "ztsnr"), {}, "sdxl", "v-ztsnr"),
        ((XL, "ztsnr"), {}, "sdxl", "epsilon"),
        ((XL,), {"modelspec.prediction_type": "v"}, "sdxl", "v"),
        ((XL,), {"modelspec.prediction_type": "v_prediction", "ss_zero_terminal_snr": "True"}, "sdxl", "v-ztsnr"),
        ((XL,), {"modelspec.predict_key": "epsilon"}, "sdxl", "epsilon"),
        ((SD1,), {}, "sd15", "epsilon"),
        ((SD1, "v_pred"), {}, "sd15", "v"),
        ((SD2,), {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "sd21", "v"),
        ((SD2,), {"modelspec.architecture": "stable-diffusion-v2-512"}, "sd21", "epsilon"),
        ((SD2,), {}, "sd-turbo", "epsilon"),
    ],
)
def test_markers_say_what_is_predicted(names, metadata, family, prediction):
    found, lines = markers(*names, metadata=metadata), []
    assert prediction_in(found, family, None, lines.append) == prediction
    assert [line.startswith("a.safetensors: predicts v") for line in lines] == [True] * (prediction != "epsilon")


def test_what_is_asked_holds_against_a_marker_and_says_so():
    lines = []
    assert prediction_in(markers(XL, "v_pred"), "sdxl", "epsilon", lines.append) == "epsilon"
    assert len(lines) == 1 and "its tensor v_pred says that it predicts v; taken as epsilon" in lines[0]
    assert prediction_in(markers(XL), "sdxl", "v", lines.append) == "v"
    assert prediction_in(markers(XL, "ztsnr"), "sdxl", "v", lines.append) == "v-ztsnr"
    assert prediction_in(markers(SD2), "sd21", "epsilon", lines.append) == "epsilon"
    assert len(lines) == 1


def test_sd_2_that_does_not_say_it_is_asked_for():
    with pytest.raises(ExportError, match="Add --prediction v or --prediction epsilon") as caught:
        prediction_in(markers(SD2), "sd21", None, print)
    assert "\n" not in str(caught.value)


def test_one_that_predicts_v_is_not_distilled():
    assert family_in(markers(XL, "v_pred"), None) == "sdxl"
    with pytest.raises(ExportError, match="may be sdxl or sdxl-turbo"):
        family_in(markers(XL), None)


@pytest.mark.parametrize(
    "found, says",
    [
        (markers(SD1, channels=9), r"an inpainting checkpoint \(its UNet takes 9 channels, not 4\)"),
        (markers(XL, channels=9), "an inpainting checkpoint"),
        (markers(SD1, channels=8), r"an editing checkpoint, as InstructPix2Pix is"),
        (markers(SD2, channels=5), "a depth-to-image checkpoint"),
        (markers(SD2, channels=7), "an upscaling checkpoint"),
        (markers(SD2, f"{UNET}label_emb.0.0.weight"), "SD 2.1 unCLIP"),
        (markers("conditioner.embedders.0.model.ln_final.weight"), "the SDXL refiner"),
        (markers(XL, "edm_mean", "edm_std"), "Playground 2.5"),
        (markers(XL, "edm_vpred.sigma_max"), "CosXL"),
        (markers(SD1, f"{UNET}joint_blocks.0.x_block.attn.qkv.weight"), "Stable Diffusion 3"),
        (markers(f"{UNET}double_blocks.0.img_attn.qkv.weight"), "Flux"),
        (markers(SD1, f"{UNET}input_blocks.1.1.time_stack.0.norm1.weight"), "Stable Video Diffusion"),
        (markers(SD1, "control_model.input_hint_block.0.weight"), "a ControlNet"),
        (markers(SD1, f"{UNET}out.2.weight.absmax"), "quantised by bitsandbytes"),
        (Markers("a", {"double_blocks.0.img_attn.qkv.weight": (1,)}, {}), "Flux"),
        (Markers("a", {"lora_unet_x.lora_down.weight": (1,)}, {}), "a LoRA, which --lora takes"),
        (Markers("a", {"first_stage_model.encoder.conv_in.weight": (1,)}, {}), "an autoencoder, which --vae takes"),
        (Markers("a", {"encoder.down.0.block.0.conv1.weight": (1,)}, {}), "an autoencoder, which --vae takes"),
        (Markers("a", {"emb_params": (1,)}, {}), "an embedding, which --embedding takes"),
        (Markers("a", {"down_blocks.0.resnets.0.conv1.weight": (1,)}, {}), "a UNet alone, in the keys of diffusers"),
        (Markers("a", {"model_ema.diffusion_modelout2bias": (1,)}, {}), "averaged twins of a UNet"),
        (Markers("a", {"text_model.final_layer_norm.weight": (1,)}, {}), "a text encoder alone"),
        (Markers("a", {"wild": (1,)}, {}), "no UNet of Stable Diffusion"),
    ],
)  # fmt: skip
def test_what_else_circulates_is_named_for_what_it_is(found, says):
    with pytest.raises(ExportError, match=says) as caught:
        family_in(found, None)
    assert all(family in str(caught.value) for family in WORKING) and "\n" not in str(caught.value)


class Tiny:
    """A small checkpoint as a folder, as networks, and as the tensors of a single file."""

    def __init__(self, folder, family):
        self.folder = write_random_checkpoint(folder / family, family)
        self.opened = open_checkpoint(str(self.folder))
        path = folder / f"{family}.safetensors"
        single_file(self.opened, path)
        self.tensors = load_file(path)
        parts = ("unet", "vae", "text_encoder", "text_encoder_2")[: 3 + self.opened.family.xl]
        self.architecture = {part: json.loads((self.folder / part / "config.json").read_text()) for part in parts}

    def read(self, path, tensors=None, **options):
        """(the checkpoint of a file of these tensors, what is said)."""
        lines = []
        save_file({name: one.contiguous() for name, one in (tensors or self.tensors).items()}, path)
        told = {"family": self.opened.family.name, "tokenizer": self.folder / "tokenizer", "say": lines.append}
        return read_single_file(path, architecture=self.architecture, **{**told, **options}), lines


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The small checkpoints by family, written once."""
    folder, known = tmp_path_factory.mktemp("checkpoints"), {}

    def of(family):
        known[family] = known.get(family) or Tiny(folder, family)
        return known[family]

    return of


def same(network, wanted, within=0.0):
    state, expected = network.state_dict(), wanted.state_dict()
    assert set(state) == set(expected)
    assert all(one.dtype == expected[key].dtype for key, one in state.items())
    return all((state[key] - expected[key]).abs().max() <= within * expected[key].abs().max() for key in expected)


def networks(checkpoint):
    return [checkpoint.unet, checkpoint.vae, *checkpoint.text]


def test_tensors_that_mark_a_v_prediction_reach_the_sampler(tiny, tmp_path):
    one = tiny("sdxl")
    marked = {**one.tensors, "v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    found, lines = one.read(tmp_path / "a.safetensors", marked)
    assert len(lines) == 1 and "predicts v on levels with a terminal SNR of zero, as its tensor v_pred says" in lines[0]
    sampler = sampler_of(found.family, found.scheduler)
    assert (sampler.prediction, sampler.levels["zero_terminal_snr"], sampler.steps["spacing"]) == (
        "v",
        True,
        "trailing",
    )
    plain = sampler_of(*(lambda c: (c.family, c.scheduler))(one.read(tmp_path / "b.safetensors")[0]))
    assert (plain.prediction, plain.levels["zero_terminal_snr"]) == ("epsilon", False)  # the control


def test_a_folder_too_predicts_what_is_asked(tiny):
    lines = []
    found = open_checkpoint(str(tiny("sd15").folder), prediction="v", say=lines.append)
    assert sampler_of(found.family, found.scheduler).prediction == "v"
    assert lines == ["sd15: its scheduler says epsilon; taken as v, as --prediction says"]
    with pytest.raises(ExportError, match="--prediction flow: expected epsilon, v, v-ztsnr"):
        open_checkpoint(str(tiny("sd15").folder), prediction="flow")


def test_epsilon_has_no_level_without_signal():
    own = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert predicting(own, "epsilon") == {"prediction_type": "epsilon"}


def test_text_encoders_from_before_text_model_are_read(tiny, tmp_path):
    one = tiny("sd15")
    old = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in one.tensors.items()}
    old["cond_stage_model.transformer.embeddings.position_ids"] = torch.arange(77)[None]
    assert OLD in old and SD1 not in old
    found, lines = one.read(tmp_path / "a.safetensors", old, family=None)
    assert found.family.name == "sd15" and lines == []
    assert all(same(*pair) for pair in zip(networks(found), networks(one.opened), strict=True))


def test_averaged_twins_are_left_out_and_it_is_said(tiny, tmp_path):
    one = tiny("sd15")
    twins = {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": torch.zeros_like(tensor)
        for name, tensor in one.tensors.items() if name.startswith(UNET)
    }  # fmt: skip
    found, lines = one.read(tmp_path / "a.safetensors", {**one.tensors, **twins})
    assert same(found.unet, one.opened.unet)
    assert lines == [
        f"a.safetensors: left out {len(twins)} tensors of averaged weights (model_ema); the UNet is its own {UNET}*"
    ]


NARROW = {torch.float16: 2**-11, torch.bfloat16: 2**-8, torch.float8_e4m3fn: 2**-4, torch.float8_e5m2: 2**-3}


@pytest.mark.parametrize("kind, steps", NARROW.items())
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_narrow_floats_are_widened(tiny, tmp_path, family, kind, steps):
    one = tiny(family)
    found, _ = one.read(tmp_path / "a.safetensors", {name: tensor.to(kind) for name, tensor in one.tensors.items()})
    for network, own in zip(networks(found), networks(one.opened), strict=True):
        for key, tensor in own.state_dict().items():
            assert torch.equal(network.state_dict()[key], tensor.to(kind).float()), key
        assert same(network, own, steps) and not same(network, own)  # the control: they were rounded


@pytest.mark.parametrize("scale", ["scale_weight", "weight_scale"])
def test_scales_beside_8_bit_floats_count(tiny, tmp_path, scale):
    one = tiny("sd15")
    tensors, expected = dict(one.tensors), {}
    for number, name in enumerate(name for name in one.tensors if name.endswith("attn1.to_q.weight")):
        layer, weight = name.rpartition(".")[0], one.tensors[name]
        by = weight.abs().amax(1, keepdim=True) / 448 if number % 2 else (weight.abs().max() / 448).reshape(1)
        tensors |= {
            name: (weight / by).to(torch.float8_e4m3fn),
            f"{layer}.{scale}": by,
            f"{layer}.scale_input": by.clone(),
        }
        expected[name] = tensors[name].float() * by
    tensors["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    found, _ = one.read(tmp_path / "a.safetensors", tensors)
    queries = [key for key in one.opened.unet.state_dict() if key.endswith("attn1.to_q.weight")]
    assert len(queries) == len(expected) > 1
    state = [found.unet.state_dict()[key] for key in queries]
    for weight in expected.values():
        assert sum(torch.equal(weight, own) for own in state) == 1
    assert same(found.unet, one.opened.unet, 2**-4)


def test_weights_in_integers_are_refused(tiny, tmp_path):
    one = tiny("sd15")
    name = f"{UNET}out.2.weight"
    with pytest.raises(ExportError, match=r"out\.2\.weight is in integers"):
        one.read(tmp_path / "a.safetensors", {**one.tensors, name: one.tensors[name].to(torch.int8)})


def without_vae(tensors):
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("first_stage_model.")}


def in_oldest_keys(vae):
    """Of diffusers before 0.14: query, key, value and proj_attn; and 1x1 convolutions there."""
    found = {}
    for name, tensor in vae.state_dict().items():
        for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        found[name] = tensor[:, :, None, None] if tensor.dim() == 2 else tensor
    return found


@pytest.mark.parametrize(
    "layout", ["folder", "inside a folder", "diffusers", "oldest", "original", "prefixed", "whole"]
)
def test_a_vae_from_elsewhere_takes_the_place_of_the_missing_one(tiny, tmp_path, layout):
    one = tiny("sd15")
    found, _ = one.read(tmp_path / "a.safetensors", without_vae(one.tensors))
    assert found.vae is None
    with pytest.raises(
        ExportError, match=r"a.safetensors has no autoencoder. Give it one: --vae stabilityai/sd-vae-ft-mse"
    ):
        choose_vae(found, "full")
    path = tmp_path / "b.safetensors"
    if layout in ("folder", "inside a folder"):
        path = one.folder / "vae" if layout == "folder" else one.folder
    else:
        original = original_vae(one.opened.vae)
        tensors = {
            "diffusers": dict(one.opened.vae.state_dict()),
            "oldest": in_oldest_keys(one.opened.vae),
            "original": {**original, "loss.logvar": torch.zeros(1), "model_ema.decay": torch.zeros(1)},
            "prefixed": {f"first_stage_model.{name}": tensor for name, tensor in original.items()},
            "whole": one.tensors,
        }[layout]
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    assert same(choose_vae(found, str(path)), one.opened.vae)
    assert overflows(found, one.opened.vae) is False


def test_a_folder_without_vae_is_opened_too(tiny, tmp_path):
    import shutil

    one = tiny("sdxl")
    folder = shutil.copytree(
        one.folder, tmp_path / "bare", ignore=lambda _, names: [name for name in names if name == "vae"]
    )
    found = open_checkpoint(str(folder))
    with pytest.raises(ExportError, match=r"bare has no autoencoder. Give it one: --vae madebyollin/sdxl-vae-fp16-fix"):
        choose_vae(found, "full")
    assert same(choose_vae(found, str(one.folder)), one.opened.vae)


def sixteen_channels(vae):
    return {**vae.state_dict(), "decoder.conv_in.weight": torch.zeros(16, 16, 3, 3)}


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda vae: {"wild": torch.zeros(1)}, "holds no autoencoder"),
        (sixteen_channels, "its latents have 16 channels, the UNet takes 4"),
        (lambda vae: dict(list(vae.state_dict().items())[:-1]), r"lacks 1 tensors"),
    ],
)
def test_a_file_that_is_no_such_vae_is_one_line(tiny, tmp_path, make, says):
    save_file({key: one.contiguous() for key, one in make(tiny("sd15").opened.vae).items()}, tmp_path / "b.safetensors")
    with pytest.raises(ExportError, match=says) as caught:
        choose_vae(tiny("sd15").opened, str(tmp_path / "b.safetensors"))
    assert "\n" not in str(caught.value)


def test_a_vae_of_another_family_is_refused(tiny):
    with pytest.raises(ExportError, match=r"scaled by 0.13025, those of sd15 by 0.18215: it is of another family"):
        choose_vae(tiny("sd15").opened, str(tiny("sdxl").folder / "vae"))


def test_a_pickled_vae_is_refused_unopened(tiny, tmp_path):
    (tmp_path / "vae.pt").write_bytes(b"cos\nsystem\n")
    with pytest.raises(ExportError, match="pickled files are refused"):
        choose_vae(tiny("sd15").opened, str(tmp_path / "vae.pt"))


@pytest.mark.parametrize(
    "family, skip, theirs", [("sd15", 1, None), ("sd15", 2, 1), ("sdxl", 2, None), ("sdxl", 1, -1)]
)
def test_clip_skip_is_that_of_the_pipeline(tiny, family, skip, theirs):
    """diffusers counts the layers that are left out."""
    from diffusers import DiffusionPipeline

    one = tiny(family)
    pipe = DiffusionPipeline.from_pretrained(one.folder, low_cpu_mem_usage=False)
    if not hasattr(pipe.text_encoder, "text_model"):  # transformers 5.6 dropped it, diffusers looks for it
        pipe.text_encoder.text_model = SimpleNamespace(final_layer_norm=pipe.text_encoder.final_layer_norm)
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    tokens = [torch.tensor([tokenizer("a blue house")]) for tokenizer in one.opened.tokenizers]

    def told(skip):
        with torch.no_grad():
            found = text_network(one.opened, skip)(*tokens)
        return found[0] if isinstance(found, tuple) else found

    with torch.no_grad():
        wanted = pipe.encode_prompt("a blue house", clip_skip=theirs, **options)[0]
    torch.testing.assert_close(told(skip), wanted, atol=1e-5, rtol=1e-5)
    assert (told(skip) - told(skip - 1 if skip > 1 else 2)).abs().max() > 1e-2  # the control
    default = {"sd15": 1, "sdxl": 2}[family]
    assert torch.equal(told(None), told(default))


@pytest.mark.parametrize("family, skip, says", [("sd15", 0, "expected 1 to 2"), ("sd15", 9, "expected 1 to 2")])
def test_a_layer_that_is_not_there_is_one_line(tiny, family, skip, says):
    with pytest.raises(ExportError, match=f"--clip-skip {skip}: {says} with {family}"):
        text_network(tiny(family).opened, skip)
