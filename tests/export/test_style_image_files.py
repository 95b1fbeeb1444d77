"""IP-Adapters and image encoders from every place: read, or refused in one line."""

import json

import pytest
import torch
from safetensors.torch import save_file
from support.random_checkpoint import write_random_checkpoint
from support.random_images import adapter_tensors, write_adapter, write_encoder

from warpfuse.export.diffusion import image_files
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.hub import adapter_needed, folder_needed
from warpfuse.export.diffusion.image_files import ImageSource, open_images, parse_style_image
from warpfuse.export.onnx_writing import ExportError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: write_random_checkpoint(folder / family, family) for family in ("sd15", "sdxl")}


@pytest.fixture(scope="module")
def checkpoint(folders):
    return open_checkpoint(str(folders["sd15"]))


@pytest.fixture(scope="module")
def adapters(folders, tmp_path_factory):
    """family or kind -> file, an encoder beside it."""
    folder = tmp_path_factory.mktemp("adapters")
    found = {kind: write_adapter(folder / kind, folders["sd15"], kind) for kind in ("plain", "plus")}
    return found | {"sdxl": write_adapter(folder / "sdxl", folders["sdxl"])}


def refused(checkpoint, source, encoder=None):
    with pytest.raises(ExportError) as caught:
        open_images(checkpoint, [ImageSource("look", str(source), None if encoder is None else str(encoder))])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_its_folder_and_an_encoder_elsewhere_are_the_same(checkpoint, adapters, tmp_path):
    file, moved = adapters["plus"], tmp_path / "moved.safetensors"
    moved.write_bytes(file.read_bytes())
    asked = [
        ImageSource("file", str(file)),
        ImageSource("folder", str(file.parent)),
        ImageSource("moved", str(moved), str(file.parent / "image_encoder")),
    ]
    images = open_images(checkpoint, asked)
    assert [(one.name, one.network, one.tokens) for one in images.about] == [
        ("file", 0, 16),
        ("folder", 0, 16),
        ("moved", 0, 16),
    ]
    assert len(images.encoders) == 1
    for layer in zip(*images.keys, strict=True):
        assert torch.equal(layer[0][0], layer[1][0]) and torch.equal(layer[0][1], layer[2][1])


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("look=a/b/c.safetensors", ImageSource("look", "a/b/c.safetensors")),
        ("look=a/b/c.safetensors:d/e/f", ImageSource("look", "a/b/c.safetensors", "d/e/f")),
        ("look=a=b.safetensors", ImageSource("look", "a=b.safetensors")),
    ],
)
def test_what_is_asked_for_is_read(text, wanted):
    assert parse_style_image(text) == wanted


def test_a_colon_in_the_name_of_a_file_that_is_there_is_its_own(tmp_path):
    file = tmp_path / "a:b.safetensors"
    file.touch()
    assert parse_style_image(f"look={file}") == ImageSource("look", str(file))


@pytest.mark.parametrize("text", ["look", "=x", "look=", "a b=x", "look=x:", "é=x"])
def test_what_is_no_name_and_source_is_one_line(text):
    with pytest.raises(ExportError, match=r"--style-image .*: expected NAME=SOURCE or NAME=SOURCE:ENCODER, as in ink="):
        parse_style_image(text)


def test_an_adapter_of_another_family_is_told(folders, checkpoint, adapters, tmp_path):
    xl = open_checkpoint(str(folders["sdxl"]))
    sizes = {32: "another family (its context is 32 wide)", 64: "another family (its context is 64 wide)"}
    assert f"this IP-Adapter is of {sizes[64]}, the checkpoint of {sizes[32]}" in refused(checkpoint, adapters["sdxl"])
    assert f"this IP-Adapter is of {sizes[32]}, the checkpoint of {sizes[64]}" in refused(xl, adapters["plain"])
    tensors = adapter_tensors(folders["sd15"])
    last = max((key for key in tensors if "to_k_ip" in key), key=lambda key: int(key.split(".")[1]))
    fewer = {key: tensor for key, tensor in tensors.items() if key != last}
    file = tmp_path / "fewer.safetensors"
    save_file(fewer, file)
    said = refused(checkpoint, file, adapters["plain"].parent / "image_encoder")
    count = sum(key.endswith("to_k_ip.weight") for key in tensors)
    assert f"made for a UNet of {count - 1} layers of cross-attention, the checkpoint has {count}" in said


def test_published_widths_have_names():
    from warpfuse.export.diffusion.families import family_by_width

    assert [family_by_width(width) for width in (768, 1024, 2048)] == ["SD 1.5", "SD 2", "SDXL"]


def test_a_wrong_encoder_is_told(checkpoint, adapters, tmp_path):
    other = write_encoder(tmp_path / "other", projection_dim=32, hidden_size=96, num_attention_heads=4)
    assert "the adapter takes 48 numbers of the encoder, other gives 32" in refused(
        checkpoint, adapters["plain"], other
    )
    assert "the adapter takes 64 numbers of the encoder, other gives 96" in refused(checkpoint, adapters["plus"], other)
    (other / "config.json").write_text(json.dumps({"model_type": "clip_text_model"}))
    said = refused(checkpoint, adapters["plain"], other)
    assert "holds clip_text_model, expected a CLIPVisionModelWithProjection" in said
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "ip-adapter.safetensors").write_bytes(adapters["plain"].read_bytes())
    assert "no image encoder in" in refused(checkpoint, alone) and "Give it behind a colon" in refused(
        checkpoint, alone
    )
    assert "no such folder, and no hub id of an image encoder" in refused(checkpoint, alone, "nowhere")


def test_published_encoders_are_named_as_the_remedy(folders, checkpoint, adapters, tmp_path):
    tensors = adapter_tensors(folders["sd15"], projection_dim=1280)
    file = tmp_path / "bigg.safetensors"
    save_file(tensors, file)
    said = refused(checkpoint, file, adapters["plain"].parent / "image_encoder")
    assert "behind a colon: ViT-bigG/14 (h94/IP-Adapter/sdxl_models/image_encoder)" in said


def test_what_is_something_else_is_refused(folders, checkpoint, adapters, tmp_path):
    tensors, file = adapter_tensors(folders["sd15"]), tmp_path / "it.safetensors"
    encoder = adapters["plain"].parent / "image_encoder"
    own = {key: tensor for key, tensor in tensors.items() if not key.startswith("image_proj.proj")}
    for change, says in (
        ({**tensors, "ip_adapter.0.to_q_lora.down.weight": torch.zeros(1, 1)}, "of faces (Face ID)"),
        ({**own, "image_proj.proj.0.weight": torch.zeros(1, 1)}, "of faces (Face ID)"),
        ({key: t for key, t in own.items() if not key.startswith("image_proj")}, "its projection is of no known kind"),
        ({key: t for key, t in tensors.items() if not key.startswith("ip_adapter")}, "holds no IP-Adapter"),
        ({**tensors, "ip_adapter.1.to_v_ip.weight": torch.zeros(3, 32)}, "1.to_v_ip.weight is [3, 32], expected ["),
    ):
        save_file(change, file)
        assert says in refused(checkpoint, file, encoder)
    file.write_bytes(b"no tensors")
    assert "is torn" in refused(checkpoint, file, encoder)


def test_pickled_weights_are_refused_with_the_remedy(checkpoint, adapters, tmp_path):
    pickled = tmp_path / "ip-adapter.bin"
    pickled.write_bytes(b"\x80\x02}")
    for source in (pickled, tmp_path, "h94/IP-Adapter/models/ip-adapter_sd15.bin"):
        assert "Pickled weights" in refused(checkpoint, source)
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(adapters["plain"].read_bytes())
    assert "expected one .safetensors file of an IP-Adapter in it, found a.safetensors, b" in refused(
        checkpoint, tmp_path
    )


def test_what_is_not_there_is_one_line(checkpoint):
    for source in ("nowhere.safetensors", "/nowhere", "nowhere", "./a/b/c.safetensors"):
        assert "no such folder or file, and nothing of the hub" in refused(checkpoint, source)


def test_too_many_and_doubled_names_are_refused_before_anything_is_read(checkpoint):
    one = ImageSource("look", "/nowhere")
    with pytest.raises(ExportError, match="--style-image look: two style images are called so"):
        open_images(checkpoint, [one, one])
    with pytest.raises(ExportError, match="5 style images, expected 4 at most"):
        open_images(checkpoint, [ImageSource(f"n{n}", "/x") for n in range(5)])


def test_of_the_hub_the_file_and_the_encoder_beside_it_are_asked_for(checkpoint, adapters, monkeypatch):
    asked = []

    def fetched(source, file, encoder):
        asked.append((source, file, encoder))
        found = adapters["plain"]
        return found, None if encoder is None else found.parent / "image_encoder"

    monkeypatch.setattr(image_files, "fetch_image_adapter", fetched)
    monkeypatch.setattr(
        image_files,
        "fetch_folder",
        lambda *of: asked.append(of) or adapters["plain"].parent / "image_encoder",
    )
    file = "h94/IP-Adapter/models/ip-adapter_sd15.safetensors"
    open_images(checkpoint, [ImageSource("look", file)])
    open_images(checkpoint, [ImageSource("look", "owner/name", "h94/IP-Adapter/models/image_encoder")])
    assert asked == [
        ("h94/IP-Adapter", "models/ip-adapter_sd15.safetensors", "models/image_encoder"),
        ("owner/name", "", None),
        ("h94/IP-Adapter", "models/image_encoder"),
    ]


def test_of_a_repository_the_right_files_are_needed():
    names = ["README.md", "models/a.safetensors", "models/a.bin", "models/image_encoder/config.json",
             "models/image_encoder/model.safetensors", "models/image_encoder/pytorch_model.bin"]  # fmt: skip
    assert adapter_needed("o/n", "models/a.safetensors", names) == "models/a.safetensors"
    encoder = "models/image_encoder"
    assert folder_needed("o/n", encoder, names) == [f"{encoder}/config.json", f"{encoder}/model.safetensors"]
    assert adapter_needed("o/n", "", ["a.safetensors", "config.json"]) == "a.safetensors"
    for file, says in (("models/b.safetensors", "has no file models/b"), ("", "holds 0 .safetensors files at its top")):
        with pytest.raises(ExportError, match=says) as caught:
            adapter_needed("o/n", file, names)
        assert "models/a.safetensors" in str(caught.value)
    with pytest.raises(ExportError, match="pickled weights alone"):
        folder_needed("o/n", encoder, [f"{encoder}/config.json", f"{encoder}/pytorch_model.bin"])
    with pytest.raises(ExportError, match=r"has no elsewhere/config\.json"):
        folder_needed("o/n", "elsewhere", names)
