"""A single file in the keys of the original gives the networks a folder does; what it does not say is asked for."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.families import WORKING
from warpfuse.export.diffusion.lora.names import Layers
from warpfuse.export.diffusion.random_checkpoint import write_random_checkpoint
from warpfuse.export.diffusion.single_file import family_in, read_single_file
from warpfuse.export.onnx_writing import ExportError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny.v1", "sd15")


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
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
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
    """Every tensor in the keys of the original."""
    attended_up = ["CrossAttn" in kind for kind in checkpoint.unet.config.up_block_types]
    tensors = {f"first_stage_model.{key}": value for key, value in original_vae(checkpoint.vae).items()}
    for key, tensor in checkpoint.unet.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        if layer == "time_embedding.cond_proj":
            tensors[f"model.diffusion_model.time_embed.cond_proj.{leaf}"] = tensor
            continue
        tensors[f"model.diffusion_model.{original_name(layer, 1, attended_up)}.{leaf}"] = tensor
    prefixes = ("conditioner.embedders.0", "conditioner.embedders.1")
    for encoder, prefix in zip(
        checkpoint.text, prefixes if checkpoint.family.xl else ("cond_stage_model",), strict=True
    ):
        if checkpoint.family.name == "sd21" or prefix == prefixes[1]:
            tensors |= {f"{prefix}.model.{key}": tensor for key, tensor in open_clip(encoder.state_dict()).items()}
            continue
        for key, tensor in encoder.state_dict().items():
            tensors[f"{prefix}.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path)


def open_clip(state):
    """The tensors of a text encoder in the keys of OpenCLIP: queries, keys and values in one."""
    state = {key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    found = {"text_projection": state["text_projection.weight"].T} if "text_projection.weight" in state else {}
    for ours_key, tensor in state.items():
        key = ours_key
        for ours, theirs in {
            "embeddings.token_embedding.weight": "token_embedding.weight",
            "embeddings.position_embedding.weight": "positional_embedding",
            "final_layer_norm": "ln_final",
            "encoder.layers": "transformer.resblocks",
            "self_attn.out_proj": "attn.out_proj",
            "layer_norm": "ln_",
            "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj",
        }.items():
            key = key.replace(ours, theirs)
        if ".q_proj." in key:
            parts = [state[ours_key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[key.replace("self_attn.q_proj.", "attn.in_proj_")] = torch.cat(parts)
        elif "self_attn" not in key and key != "text_projection.weight":
            found[key] = tensor
    return found


def test_layers_of_the_original_are_found_by_a_lora_under_their_names(original):
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


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl", "lcm"])
def test_a_single_file_gives_the_same_networks(family, tmp_path):
    source = write_random_checkpoint(tmp_path / "tiny", family)
    checkpoint = open_checkpoint(str(source))
    single_file(checkpoint, tmp_path / "tiny.safetensors")
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")[: 3 + checkpoint.family.xl]
    architecture = {part: json.loads((source / part / "config.json").read_text()) for part in parts}
    found = read_single_file(tmp_path / "tiny.safetensors", family, source / "tokenizer", architecture)
    assert (found.name, found.family.name) == ("tiny", family)
    networks = list(
        zip((found.unet, found.vae, *found.text), (checkpoint.unet, checkpoint.vae, *checkpoint.text), strict=True)
    )
    for network, wanted in networks:
        same(network, wanted)
    assert found.tokenizers == checkpoint.tokenizers
    for network, wanted in networks:
        next(iter(wanted.parameters())).data.add_(1)
        with pytest.raises(AssertionError):  # the control
            same(network, wanted)


@pytest.mark.parametrize(
    "key, part",
    [
        ("model.diffusion_model.out.2.bias", "unet lacks 1 tensors, conv_out.bias"),
        ("first_stage_model.decoder.conv_out.bias", "vae lacks 1 tensors"),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", "text_encoder lacks 1 tensors"),
    ],
)
def test_a_single_file_without_one_tensor_is_refused(original, tmp_path, key, part):
    checkpoint = open_checkpoint(str(original))
    path = tmp_path / "tiny.safetensors"
    single_file(checkpoint, path)
    tensors = load_file(path)
    del tensors[key]
    save_file(tensors, path)
    parts = ("unet", "vae", "text_encoder")
    architecture = {part: json.loads((original / part / "config.json").read_text()) for part in parts}
    with pytest.raises(ExportError, match=part):
        read_single_file(path, None, original / "tokenizer", architecture)


def same(network, wanted):
    state, expected = network.state_dict(), wanted.state_dict()
    assert set(state) == set(expected)
    assert [key for key in expected if not torch.equal(state[key], expected[key])] == []


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
