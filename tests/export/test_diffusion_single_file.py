"""A single file in the keys of the original gives the networks a folder does; what it does not say is asked for."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.original_layout import original_name, single_file
from support.random_checkpoint import write_random_checkpoint

from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.families import WORKING
from warpfuse.export.diffusion.lora.names import LayerNames
from warpfuse.export.diffusion.markers import family_in, markers_of
from warpfuse.export.diffusion.single_file import read_single_file
from warpfuse.export.onnx_writing import ExportError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny.v1", "sd15")


def test_layers_of_the_original_are_found_by_a_lora_under_their_names(original):
    checkpoint = open_checkpoint(str(original))
    attended_up = ["CrossAttn" in kind for kind in checkpoint.unet.config.up_block_types]
    layers = LayerNames(checkpoint.unet, checkpoint.text, 1)
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
    assert family_in(markers_of(path), asked) == family


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
        family_in(markers_of(path), asked)
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
    prediction = "v" if family == "sd21" else None
    file = tmp_path / "tiny.safetensors"
    found = read_single_file(file, family, source / "tokenizer", architecture, prediction=prediction)
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
