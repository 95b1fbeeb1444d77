"""A checkpoint is read whole from a folder or a single file, or it is refused with one line that says why."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.random_checkpoint import write_random_checkpoint, write_tokenizer

from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.hub import weights_needed
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
