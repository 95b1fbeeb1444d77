"""ControlNets and T2I-Adapters from files of every layout: what was written to the bit, or refused."""

import json

import pytest
import torch
from safetensors.torch import save_file
from support.original_layout import original_name
from support.random_checkpoint import write_random_checkpoint
from support.random_controls import adapter, controlnet, write_adapter, write_controlnet

from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.control_files import ControlSource, open_controls
from warpfuse.export.diffusion.hub import network_needed
from warpfuse.export.onnx_writing import ExportError

SIZE = (96, 64)
HINT = "controlnet_cond_embedding"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: write_random_checkpoint(folder / family, family) for family in ("sd15", "sdxl")}


@pytest.fixture(scope="module")
def checkpoints(folders):
    return {family: open_checkpoint(str(folder)) for family, folder in folders.items()}


def opened(checkpoint, source, form="controlnet", said=None, size=SIZE):
    asked = [ControlSource("it", form, str(source))]
    return open_controls(checkpoint, asked, size, (said if said is not None else []).append).networks[0]


def original_controlnet(net):
    """The tensors of a ControlNet of diffusers in the keys of the original."""
    found = {}
    for key, tensor in net.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        parts = layer.split(".")
        if parts[0] == "controlnet_down_blocks":
            layer = f"zero_convs.{parts[1]}.0"
        elif parts[0] == "controlnet_mid_block":
            layer = "middle_block_out.0"
        elif layer == f"{HINT}.conv_in":
            layer = "input_hint_block.0"
        elif layer == f"{HINT}.conv_out":
            layer = "input_hint_block.14"
        elif parts[0] == HINT:
            layer = f"input_hint_block.{2 * int(parts[2]) + 2}"
        else:
            layer = original_name(layer, 1, [])
        found[f"{layer}.{leaf}"] = tensor.clone().contiguous()
    assert len(found) == len(net.state_dict())
    return found


def original_adapter(net):
    """The tensors of a full T2I-Adapter in the keys of the original, its layers numbered through; a light one's."""
    found = {}
    for key, tensor in net.state_dict().items():
        parts = key.removeprefix("adapter.").split(".")
        if net.config.adapter_type == "light_adapter":
            parts = ["body" if part == "resnets" else part for part in parts]
        elif parts[0] == "body":
            number = 2 * int(parts[1]) + (int(parts[3]) if parts[2] == "resnets" else 0)
            parts = ["body", str(number), *(parts[4:] if parts[2] == "resnets" else parts[2:])]
        found[".".join(parts)] = tensor.clone().contiguous()
    assert len(found) == len(net.state_dict())
    return found


def same(network, wanted):
    found = network.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("layout", ["folder", "diffusers", "original", "whole"])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_controlnet_is_read_to_the_bit_from_every_layout(folders, checkpoints, tmp_path, family, layout):
    net, said, path = controlnet(folders[family]), [], tmp_path / "net.safetensors"
    wanted = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    if layout == "folder":
        path = tmp_path / "net"
        net.save_pretrained(path)
    elif layout == "diffusers":
        save_file({key: tensor.contiguous() for key, tensor in net.state_dict().items()}, path)
    elif layout == "original":
        save_file(original_controlnet(net), path)
    else:
        beside = {"model.diffusion_model.out.0.weight": torch.zeros(4), "first_stage_model.x": torch.zeros(1)}
        save_file({f"control_model.{key}": tensor for key, tensor in original_controlnet(net).items()} | beside, path)
    assert same(opened(checkpoints[family], path, said=said), wanted)
    other = controlnet(folders[family], seed=9).state_dict()
    assert not same(opened(checkpoints[family], path), other), "the control: another ControlNet"
    assert bool(said) == (layout == "whole")
    if said:
        assert "left out 2 tensors of the checkpoint beside it" in said[0]


@pytest.mark.parametrize("options", [{}, {"channels": 1}, {"light": True}], ids=["colour", "gray", "light"])
@pytest.mark.parametrize("layout", ["folder", "diffusers", "original"])
def test_an_adapter_is_read_to_the_bit_from_every_layout(folders, checkpoints, tmp_path, layout, options):
    net, path = adapter(folders["sd15"], **options), tmp_path / "net.safetensors"
    if layout == "folder":
        path = tmp_path / "net"
        net.save_pretrained(path)
    else:
        save_file(original_adapter(net) if layout == "original" else dict(net.state_dict()), path)
    found = opened(checkpoints["sd15"], path, "adapter")
    assert same(found, net.state_dict())
    assert dict(found.config)["adapter_type"] == net.config.adapter_type


@pytest.mark.parametrize("layout", ["folder", "original"])
def test_an_adapter_of_sdxl_is_read_too(folders, checkpoints, tmp_path, layout):
    net, path = adapter(folders["sdxl"]), tmp_path / "net.safetensors"
    if layout == "folder":
        path = write_adapter(tmp_path / "net", folders["sdxl"])
    else:
        save_file(original_adapter(net), path)
    assert same(opened(checkpoints["sdxl"], path, "adapter"), net.state_dict())


def refused(checkpoint, source, form="controlnet", **options):
    with pytest.raises(ExportError) as caught:
        opened(checkpoint, source, form, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_controlnet_of_another_family_is_refused_by_name(folders, checkpoints, tmp_path, monkeypatch, as_file):
    from warpfuse.export.diffusion import families

    monkeypatch.setattr(families, "BY_WIDTH", {32: "SD 1.5", 64: "SDXL"})  # as wide as those of the tests
    net = controlnet(folders["sdxl"])
    path = tmp_path / "net"
    if as_file:
        path = tmp_path / "net.safetensors"
        save_file(original_controlnet(net), path)
    else:
        net.save_pretrained(path)
    assert "this ControlNet is of SDXL, the checkpoint of SD 1.5" in refused(checkpoints["sd15"], path)
    save_file(original_adapter(adapter(folders["sdxl"])), tmp_path / "adapter.safetensors")
    assert "this T2I-Adapter is of SDXL, the checkpoint of SD 1.5" in refused(
        checkpoints["sd15"], tmp_path / "adapter.safetensors", "adapter"
    )


def test_one_of_other_widths_is_refused(folders, checkpoints, tmp_path):
    net = write_controlnet(tmp_path / "net", folders["sd15"])
    config = json.loads((net / "config.json").read_text())
    (net / "config.json").write_text(json.dumps({**config, "_class_name": "ControlNetUnionModel"}))
    assert "ControlNetUnionModel cannot be exported. Those that work: ControlNetModel" in refused(
        checkpoints["sd15"], net
    )
    (net / "config.json").write_text(json.dumps({**config, "block_out_channels": [32, 32, 64, 96]}))
    assert "does not hold a ControlNetModel" in refused(checkpoints["sd15"], net)
    (net / "config.json").unlink()
    assert "config.json" in refused(checkpoints["sd15"], net)


@pytest.mark.parametrize("prefix", ["", "control_model."])
def test_a_difference_is_added_to_the_unet_of_the_checkpoint(folders, checkpoints, tmp_path, prefix):
    """What both have is kept as the difference; hint encoder and zero convolutions are the ControlNet's alone."""
    net, checkpoint, said = controlnet(folders["sd15"]), checkpoints["sd15"], []
    own, wanted = checkpoint.unet.state_dict(), {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            tensor.sub_(own[key]) if key in own else None
    path = tmp_path / "diff_control.safetensors"
    save_file({**{f"{prefix}{key}": tensor for key, tensor in original_controlnet(net).items()},
               "difference": torch.zeros(1)}, path)  # fmt: skip
    found = opened(checkpoint, path, said=said).state_dict()
    assert found.keys() == wanted.keys() and len(set(own) & set(wanted)) > 20
    assert all(torch.allclose(found[key], wanted[key], atol=1e-6) for key in wanted)
    assert any(not torch.allclose(net.state_dict()[key], wanted[key], atol=1e-2) for key in wanted), "the control"
    assert said[-1:] == ["diff_control.safetensors: a difference to a UNet, added to that of the checkpoint"]


def test_what_is_something_else_is_refused(folders, checkpoints, tmp_path):
    tensors = original_controlnet(controlnet(folders["sd15"]))
    path = tmp_path / "net.safetensors"
    for key, says in (
        ("lora_controlnet", "Take the whole ControlNet of its kind, as in diffusers/controlnet-canny-sdxl-1.0"),
        (
            "task_embedding",
            "is a ControlNet-Union, which is of many kinds; it cannot be exported. Take a ControlNet of",
        ),
    ):
        save_file({**tensors, key: torch.zeros(1)}, path)
        assert says in refused(checkpoints["sd15"], path)
    save_file({"lora_unet.weight": torch.zeros(1)}, path)
    assert "neither a ControlNet nor a T2I-Adapter" in refused(checkpoints["sd15"], path)
    lacks = {key: tensor for key, tensor in tensors.items() if key != "zero_convs.3.0.weight"}
    save_file(lacks, path)
    assert "its ControlNet lacks 1 tensors, controlnet_down_blocks.3.weight for one" in refused(
        checkpoints["sd15"], path
    )
    save_file(tensors, path)
    assert "this is a ControlNet. Give it with --control" in refused(checkpoints["sd15"], path, "adapter")
    save_file(original_adapter(adapter(folders["sd15"])), path)
    assert "this is a T2I-Adapter. Give it with --adapter" in refused(checkpoints["sd15"], path)


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".bin"])
def test_pickled_weights_are_refused_with_the_remedy(folders, checkpoints, tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"\x80\x02}")
    assert "Pickled weights" in refused(checkpoints["sd15"], path) and path.suffix == suffix
    folder = write_controlnet(tmp_path / "net", folders["sd15"])
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    assert "pickled weights alone" in refused(checkpoints["sd15"], folder)


def test_sources_that_are_not_there_and_sizes_that_do_not_fit_are_refused(folders, checkpoints, tmp_path):
    for source in ("nowhere.safetensors", "/nowhere", "a/b/c", "nowhere.pth"):
        assert "no such folder or file, and no hub id" in refused(checkpoints["sd15"], source)
    path = write_adapter(tmp_path / "xl", folders["sdxl"])
    assert "takes multiples of 16" in refused(checkpoints["sdxl"], path, "adapter", size=(96, 72))
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"no tensors")
    assert "is torn" in refused(checkpoints["sd15"], torn)


def test_too_many_and_doubled_names_are_refused_before_anything_is_read(checkpoints):
    one = ControlSource("it", "controlnet", "/nowhere")
    with pytest.raises(ExportError, match="--control it: two controls are called so"):
        open_controls(checkpoints["sd15"], [one, one], SIZE)
    with pytest.raises(ExportError, match="9 controls, expected 8 at most"):
        open_controls(checkpoints["sd15"], [ControlSource(f"n{n}", "adapter", "/x") for n in range(9)], SIZE)


def test_of_the_hub_the_weights_in_full_precision_are_fetched():
    full, half = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
    pickled = "diffusion_pytorch_model.bin"
    assert network_needed("a/b", ["config.json", full, half, pickled, "x/y.safetensors"]) == ["config.json", full]
    assert network_needed("a/b", ["config.json", half]) == ["config.json", half]
    with pytest.raises(ExportError, match=r"a/b has pickled weights alone\. They are refused"):
        network_needed("a/b", ["config.json", pickled])
    with pytest.raises(ExportError, match=r"a/b has no config\.json"):
        network_needed("a/b", [full])
