"""A merged LoRA is W + scale (alpha / rank) up down, by every spelling. `test_lora_forms` has its relatives."""

import json

import pytest
import torch
from safetensors.torch import save_file
from support.random_checkpoint import write_random_checkpoint

from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.lora.merging import Lora, merge_lora, parse_lora
from warpfuse.export.onnx_writing import ExportError

RANK = 3
UNET_LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
UNET_CONV = "down_blocks.1.resnets.0.conv1"
TEXT = "encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: write_random_checkpoint(root / family, family) for family in ("sd15", "sdxl")}


@pytest.fixture
def checkpoint(folders):
    return open_checkpoint(str(folders["sd15"]))


def halves(layer, seed=0):
    """(down, up) of a layer, of the shapes its kind has."""
    generator = torch.Generator().manual_seed(seed)
    weight = layer.weight
    one = (1,) * (weight.dim() - 2)
    down = torch.randn(RANK, *weight.shape[1:], generator=generator)
    return down, torch.randn(weight.shape[0], RANK, *one, generator=generator)


def text_layer(encoder):
    return dict(encoder.named_modules()).get(TEXT) or encoder.get_submodule(f"text_model.{TEXT}")


def layers(checkpoint):
    """(layer, its kohya stem, its PEFT stem)."""
    unet, text = checkpoint.unet, checkpoint.text[0]
    return [
        (unet.get_submodule(UNET_LINEAR), f"lora_unet_{UNET_LINEAR.replace('.', '_')}", f"unet.{UNET_LINEAR}"),
        (unet.get_submodule(UNET_CONV), f"lora_unet_{UNET_CONV.replace('.', '_')}", f"unet.{UNET_CONV}"),
        (text_layer(text), f"lora_te_text_model_{TEXT.replace('.', '_')}", f"text_encoder.text_model.{TEXT}"),
    ]


SPELLINGS = {
    "kohya": lambda kohya, peft: (f"{kohya}.lora_down.weight", f"{kohya}.lora_up.weight"),
    "peft": lambda kohya, peft: (f"{peft}.lora_A.weight", f"{peft}.lora_B.weight"),
    "diffusers": lambda kohya, peft: (f"{peft}.lora.down.weight", f"{peft}.lora.up.weight"),
    "adapter": lambda kohya, peft: (f"{peft}.lora_A.default.weight", f"{peft}.lora_B.default.weight"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("alpha", [None, 1.5])
def test_the_sum_is_the_reference_sum(checkpoint, tmp_path, spelling, alpha):
    tensors, wanted = {}, []
    for seed, (layer, kohya, peft) in enumerate(layers(checkpoint)):
        down, up = halves(layer, seed)
        names = SPELLINGS[spelling](kohya, peft)
        tensors |= dict(zip(names, (down, up), strict=True))
        if alpha is not None:
            tensors[f"{kohya if spelling == 'kohya' else peft}.alpha"] = torch.tensor(alpha)
        delta = torch.einsum("or,r...->o...", up.flatten(1), down)
        wanted.append(layer.weight + 0.5 * (1.0 if alpha is None else alpha / RANK) * delta)
    save_file(tensors, tmp_path / "lora.safetensors")
    untouched = checkpoint.unet.conv_in.weight.clone()
    assert merge_lora(checkpoint, Lora(tmp_path / "lora.safetensors", 0.5)) == 3
    for (layer, *_), weight in zip(layers(checkpoint), wanted, strict=True):
        torch.testing.assert_close(layer.weight.data, weight)
    assert torch.equal(checkpoint.unet.conv_in.weight, untouched)


@pytest.mark.parametrize("projection, layer", [("to_k", "to_k"), ("to_out", "to_out.0")])
def test_the_oldest_spelling_names_the_attention_processor(checkpoint, tmp_path, projection, layer):
    attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    changed = checkpoint.unet.get_submodule(f"{attention}.{layer}")
    down, up = halves(changed)
    stem = f"unet.{attention}.processor.{projection}"
    save_file({f"{stem}_lora.down.weight": down, f"{stem}_lora.up.weight": up}, tmp_path / "lora.safetensors")
    wanted = changed.weight + up @ down
    assert merge_lora(checkpoint, Lora(tmp_path / "lora.safetensors")) == 1
    torch.testing.assert_close(changed.weight.data, wanted)


def test_alpha_beside_the_file_or_in_it_counts(folders, tmp_path):
    for place in ("beside", "inside"):
        checkpoint = open_checkpoint(str(folders["sd15"]))
        layer, _, stem = layers(checkpoint)[0]
        down, up = halves(layer)
        wanted = layer.weight + (6.0 / RANK) * up @ down
        metadata = {"lora_adapter_metadata": json.dumps({"unet.r": RANK, "unet.lora_alpha": 6})}
        path = tmp_path / place / "lora.safetensors"
        path.parent.mkdir()
        if place == "beside":
            (path.parent / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6, "r": RANK}))
            stem = f"base_model.model.{stem.removeprefix('unet.')}"
        tensors = {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        save_file(tensors, path, metadata if place == "inside" else None)
        merge_lora(checkpoint, Lora(path))
        torch.testing.assert_close(layer.weight.data, wanted)


def test_the_second_text_encoder_and_the_names_of_the_original_are_found(folders, tmp_path):
    """Small SDXL has one residual block a level, so input_blocks 3 is level 1's first and output_blocks 2 too."""
    checkpoint = open_checkpoint(str(folders["sdxl"]))
    unet = checkpoint.unet
    inner = "transformer_blocks.0.attn2.to_k"
    pairs = {
        "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k": f"down_blocks.1.attentions.0.{inner}",
        "lora_unet_output_blocks_2_1_transformer_blocks_0_attn2_to_k": f"up_blocks.1.attentions.0.{inner}",
        "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_k": f"mid_block.attentions.0.{inner}",
        "lora_unet_middle_block_2_out_layers_3": "mid_block.resnets.1.conv2",
        "lora_unet_input_blocks_2_0_op": "down_blocks.0.downsamplers.0.conv",
    }
    named = {stem: unet.get_submodule(name) for stem, name in pairs.items()}
    named[f"lora_te2_text_model_{TEXT.replace('.', '_')}"] = text_layer(checkpoint.text[1])
    tensors, wanted = {}, {}
    for seed, (stem, layer) in enumerate(named.items()):
        down, up = halves(layer, seed)
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        wanted[stem] = layer.weight + torch.einsum("or,r...->o...", up.flatten(1), down)
    save_file(tensors, tmp_path / "lora.safetensors")
    assert merge_lora(checkpoint, Lora(tmp_path / "lora.safetensors")) == len(named)
    for stem, layer in named.items():
        torch.testing.assert_close(layer.weight.data, wanted[stem])


def test_a_pickled_or_torn_file_is_refused(checkpoint, tmp_path):
    (tmp_path / "lora.pt").write_bytes(b"...")
    with pytest.raises(ExportError, match="pickled ones are refused"):
        merge_lora(checkpoint, Lora(tmp_path / "lora.pt"))
    (tmp_path / "lora.safetensors").write_bytes(b"\x10" + b"\0" * 20)
    with pytest.raises(ExportError, match="is torn"):
        merge_lora(checkpoint, Lora(tmp_path / "lora.safetensors"))


def test_the_scale_follows_a_colon(tmp_path):
    path = tmp_path / "a-1.5.safetensors"
    path.write_bytes(b"")
    assert parse_lora(f"{path}") == Lora(path, 1.0)
    assert parse_lora(f"{path}:0.75") == Lora(path, 0.75)
    assert parse_lora(f"{path}:-1") == Lora(path, -1.0)
    with pytest.raises(ExportError, match="is no file"):
        parse_lora(f"{path}:strong")
