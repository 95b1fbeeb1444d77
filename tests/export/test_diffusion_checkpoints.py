"""A checkpoint is read whole from a folder or a single file, or it is refused with one line that says why."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.families import WORKING
from warpfuse.export.diffusion.hub import weights_needed
from warpfuse.export.diffusion.random_checkpoint import write_random_checkpoint, write_tokenizer
from warpfuse.export.diffusion.single_file import family_in, read_single_file
from warpfuse.export.diffusion.tokens import read_tokenizer
from warpfuse.export.onnx_writing import ExportError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny.v1", "sd15")


@pytest.fixture
def folder(original, tmp_path):
    """A copy to be spoilt."""
    return shutil.copytree(original, tmp_path / "tiny.v1")


def weights(folder, part):
    return next((folder / part).glob("*.safetensors"))


def test_a_folder_is_opened_with_its_name_and_family(original):
    checkpoint = open_checkpoint(str(original))
    assert (checkpoint.name, checkpoint.family.name, len(checkpoint.text)) == ("tiny.v1", "sd15", 1)
    assert next(checkpoint.unet.parameters()).dtype == torch.float32


def test_weights_in_half_precision_are_found_by_their_name(folder):
    for part in ("unet", "vae", "text_encoder"):
        path = weights(folder, part)
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    checkpoint = open_checkpoint(str(folder))
    assert next(checkpoint.text[0].parameters()).dtype == torch.float32


def without_text_encoder(folder):
    shutil.rmtree(folder / "text_encoder")


def without_tokenizer(folder):
    shutil.rmtree(folder / "tokenizer")


def pickled(folder):
    weights(folder, "unet").rename(folder / "unet" / "diffusion_pytorch_model.bin")


def without_weights(folder):
    weights(folder, "vae").unlink()


def torn(folder):
    path = weights(folder, "unet")
    path.write_bytes(path.read_bytes()[:-100])


def torn_description(folder):
    (folder / "unet" / "config.json").write_text('{"in_channels": 4,')


def other_network(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cross_attention_dim": 48}))


def without_a_tensor(folder):
    from safetensors.torch import load_file

    path = weights(folder, "text_encoder")
    tensors = load_file(path)
    del tensors[next(name for name in tensors if "final_layer_norm.bias" in name)]
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    "spoil, says",
    [
        (without_text_encoder, "text_encoder is missing"),
        (without_tokenizer, "no tokenizer"),
        (pickled, "unet has pickled weights alone. They are refused"),
        (without_weights, "vae has no weights"),
        (torn, "is torn"),
        (torn_description, "is torn"),
        (other_network, "does not hold a UNet2DConditionModel|misshapen"),
        (without_a_tensor, "1 tensors of the network are missing or misshapen, .*final_layer_norm.bias"),
    ],
)
def test_a_spoilt_folder_is_refused_in_one_line(folder, spoil, says):
    spoil(folder)
    with pytest.raises(ExportError, match=says) as caught:
        open_checkpoint(str(folder))
    assert "\n" not in str(caught.value)


def test_a_hub_id_may_have_a_dot_and_is_fetched(original, monkeypatch):
    monkeypatch.setattr("warpfuse.export.diffusion.hub.fetch", lambda source: (original, "abc123"))
    checkpoint = open_checkpoint("stabilityai/stable-diffusion-2.1")
    assert checkpoint.source == "stabilityai/stable-diffusion-2.1@abc123"
    assert checkpoint.name == "stable-diffusion-2.1"


@pytest.mark.parametrize(
    "source, says",
    [
        ("nowhere", "no such folder or file, and no hub id"),
        ("./some/folder", "no such folder or file"),
        ("a/b.safetensors", "no such folder or file"),
    ],
)
def test_nothing_there_is_said(source, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=says):
        open_checkpoint(source)


def test_a_pickled_file_is_refused_unopened(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"cos\nsystem\n")
    with pytest.raises(ExportError, match=r"Pickled checkpoints .* are refused"):
        open_checkpoint(str(tmp_path / "model.ckpt"))


def test_flags_of_a_single_file_are_refused_with_a_folder(original):
    with pytest.raises(ExportError, match="--family is for a single"):
        open_checkpoint(str(original), family="sd15")


def test_what_is_downloaded_is_safetensors_alone():
    names = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    names += ["unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin"]
    names += ["vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.safetensors", "safety_checker/a.bin"]
    assert weights_needed("a/b", names) == [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.safetensors",
    ]
    with pytest.raises(ExportError, match="unet has pickled weights alone"):
        weights_needed("a/b", ["model_index.json", "unet/diffusion_pytorch_model.bin"])
    with pytest.raises(ExportError, match=r"no model_index\.json"):
        weights_needed("a/b", ["pytorch_model.bin"])


def test_the_tokenizer_is_that_of_transformers(tmp_path):
    from transformers import CLIPTokenizer

    write_tokenizer(tmp_path, pad="!")
    reference, ours = CLIPTokenizer.from_pretrained(tmp_path), read_tokenizer(tmp_path)
    prompts = ["", "ink", "INK  oil,\n1984 it's blue!", "día ü 漢字 🙂", "paint " * 100, "<|endoftext|> ink"]
    for prompt in prompts:
        wanted = reference(prompt, padding="max_length", max_length=77, truncation=True).input_ids
        assert ours(prompt) == wanted
    assert ours("ink") != ours("oil") and ours.pad == 0 and ours("ink")[-1] == 0


# The layout of the original implementation, told here from diffusers' the other way round.
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_AROUND = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_name(name, per_block, attended_up):
    """A layer of a UNet of diffusers -> the original's."""
    parts = name.split(".")
    if parts[0] == "mid_block":
        place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        return f"middle_block.{place}.{inside(parts[1], parts[3:])}"
    if parts[0] not in ("down_blocks", "up_blocks"):
        stem = next(stem for stem in _AROUND if name == stem or name.startswith(f"{stem}."))
        return _AROUND[stem]
    level, kind, step, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
    each = per_block + 1
    if parts[0] == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{each * level + each}.0.op"
        return f"input_blocks.{each * level + step + 1}.{int(kind == 'attentions')}.{inside(kind, rest)}"
    if kind == "upsamplers":
        return f"output_blocks.{each * level + per_block}.{1 + attended_up[level]}.conv"
    return f"output_blocks.{each * level + step}.{int(kind == 'attentions')}.{inside(kind, rest)}"


def inside(kind, rest):
    return ".".join(rest) if kind == "attentions" else _IN_RESNET[rest[0]]


def single_file(checkpoint, path):
    """UNet and text encoder in the keys of the original; the autoencoder keeps those of diffusers, which is allowed."""
    attended_up = ["CrossAttn" in kind for kind in checkpoint.unet.config.up_block_types]
    tensors = {}
    for key, tensor in checkpoint.unet.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        tensors[f"model.diffusion_model.{original_name(layer, 1, attended_up)}.{leaf}"] = tensor
    for key, tensor in checkpoint.text[0].state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return tensors


def test_layers_of_the_original_are_found_by_a_lora_under_their_names(original):
    from warpfuse.export.diffusion.lora_names import Layers

    checkpoint = open_checkpoint(str(original))
    attended_up = ["CrossAttn" in kind for kind in checkpoint.unet.config.up_block_types]
    layers = Layers(checkpoint.unet, checkpoint.text, 1)
    seen = 0
    for name, layer in checkpoint.unet.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            stem = original_name(name, 1, attended_up).replace(".", "_")
            assert layers.find(f"lora_unet_{stem}") is layer, stem
            assert layers.find(f"unet.{name}") is layer
            seen += 1
    assert seen > 100 and layers.find("lora_unet_input_blocks_99_1_proj_in") is None


@pytest.mark.parametrize(
    "marks, asked, family",
    [
        (["cond_stage_model.transformer.text_model.final_layer_norm.weight"], None, "sd15"),
        (["cond_stage_model.model.ln_final.weight"], "sd-turbo", "sd-turbo"),
        (["conditioner.embedders.1.model.ln_final.weight"], "sdxl", "sdxl"),
        (
            [
                "cond_stage_model.transformer.text_model.final_layer_norm.weight",
                "model.diffusion_model.time_embed.cond_proj.weight",
            ],
            None,
            "lcm",
        ),
    ],
)
def test_a_single_file_says_what_it_can(marks, asked, family, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(1) for name in ("model.diffusion_model.out.2.bias", *marks)}, path)
    assert family_in(path, asked) == family


@pytest.mark.parametrize(
    "marks, asked, says",
    [
        ([], None, "text encoder is missing"),
        (["cond_stage_model.model.ln_final.weight"], None, "may be sd21 or sd-turbo.*Add --family sd21"),
        (["cond_stage_model.model.ln_final.weight"], "sdxl", "is sd21 or sd-turbo by its keys"),
        (["cond_stage_model.model.ln_final.weight"], "sd3", "Those that work"),
    ],
)
def test_a_single_file_that_does_not_say_it_is_refused(marks, asked, says, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(1) for name in ("model.diffusion_model.out.2.bias", *marks)}, path)
    with pytest.raises(ExportError, match=says) as caught:
        family_in(path, asked)
    assert "\n" not in str(caught.value)


def test_a_single_file_without_a_unet_is_refused_with_those_that_work(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"transformer.blocks.0.weight": torch.zeros(1)}, path)
    with pytest.raises(ExportError, match="no UNet of Stable Diffusion") as caught:
        open_checkpoint(str(path))
    assert all(family in str(caught.value) for family in WORKING)


def test_a_single_file_gives_the_same_networks(original, tmp_path):
    checkpoint = open_checkpoint(str(original))
    tensors = single_file(checkpoint, tmp_path / "tiny.safetensors")
    tensors |= {f"first_stage_model.{key}": value for key, value in original_vae(checkpoint.vae).items()}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "tiny.safetensors")
    parts = ("unet", "vae", "text_encoder")
    architecture = {part: json.loads((original / part / "config.json").read_text()) for part in parts}
    found = read_single_file(tmp_path / "tiny.safetensors", None, original / "tokenizer", architecture)
    assert (found.name, found.family.name) == ("tiny", "sd15")
    for network, wanted in ((found.unet, checkpoint.unet), (found.vae, checkpoint.vae)):
        same(network, wanted)
    same(found.text[0], checkpoint.text[0])
    assert found.tokenizers == checkpoint.tokenizers
    with pytest.raises(AssertionError):  # the control
        checkpoint.unet.conv_in.weight.data.add_(1)
        same(found.unet, checkpoint.unet)


def same(network, wanted):
    state, expected = network.state_dict(), wanted.state_dict()
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def original_vae(vae):
    """The tensors of an autoencoder in the keys of the original."""
    around = {"conv_norm_out": "norm_out", "quant_conv": "quant_conv"}
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    levels = len(vae.config.block_out_channels)
    found = {}
    for key, tensor in vae.state_dict().items():
        name = key.replace("conv_shortcut", "nin_shortcut")
        for ours, theirs in around.items():
            name = name.replace(ours, theirs)
        name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0" in name:
            for ours, theirs in attention.items():
                name = name.replace(f"attentions.0.{ours}", f"attn_1.{theirs}")
            name = name.replace("mid_block", "mid")
            if tensor.dim() == 2:
                tensor = tensor[:, :, None, None]
        parts = name.split(".")
        if parts[1] in ("down_blocks", "up_blocks"):
            side = parts[1].removesuffix("_blocks")
            level = int(parts[2]) if side == "down" else levels - 1 - int(parts[2])
            sampler = "downsample.conv" if side == "down" else "upsample.conv"
            rest = f"block.{parts[4]}.{'.'.join(parts[5:])}" if parts[3] == "resnets" else f"{sampler}.{parts[-1]}"
            name = f"{parts[0]}.{side}.{level}.{rest}"
        found[name] = tensor
    return found
