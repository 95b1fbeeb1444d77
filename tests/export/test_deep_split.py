"""A UNet split at its deep feature: both parts are the UNet, and the shallow one is small."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file
from support import lora_bundles as make
from support.random_checkpoint import write_random_checkpoint

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.errors import BundleError
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.deep import DeepSplit
from warpfuse.export.diffusion.families import WORKING
from warpfuse.export.diffusion.lora.live import LiveNetwork, attach_loras
from warpfuse.export.diffusion.lora.merging import Lora
from warpfuse.export.diffusion.networks import UNet
from warpfuse.export.diffusion.written import write_network
from warpfuse.export.onnx_writing import ExportError

ODD = (72, 64)  # the latent's sides do not halve evenly
ROWS = 2


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: write_random_checkpoint(folder / family, family) for family in WORKING}


def exported(source, folder, **changes):
    request = Request(**{"size": ODD, "steps": ROWS, "dtype": "fp32", **changes})
    return load_bundle(str(export_checkpoint(folder, open_checkpoint(str(source)), request).folder))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("family", WORKING)
def test_both_parts_are_the_unet_to_the_bit(family, layers, sources):
    unet = open_checkpoint(str(sources[family])).unet
    random = torch.Generator().manual_seed(1)
    context = torch.randn(ROWS, 77, unet.config.cross_attention_dim, generator=random)
    inputs = [torch.randn(ROWS, 4, 8, 9, generator=random), torch.tensor([801.0, 33.5]), context]
    if unet.config.addition_embed_type:
        inputs += [torch.randn(ROWS, 32, generator=random), torch.ones(ROWS, 6)]
    network = UNet(unet)
    split = DeepSplit(unet, layers)
    with torch.no_grad():
        wanted = network(*inputs)
        output, deep = split.whole(network)(*inputs)
        again = split.shallow(network)(*inputs, deep)
        other = split.shallow(network)(*inputs, 0 * deep)
        assert torch.equal(network(*inputs), wanted), "the UNet is as it was"
    assert torch.equal(output, wanted) and torch.equal(again, wanted)
    assert (other - wanted).abs().max() > 0.1, "the control: the feature matters"
    assert 0 < split.unused < sum(one.numel() for one in unet.parameters())


def run(path, feed):
    session = ort.InferenceSession(path)
    names = {one.name for one in session.get_inputs()}
    return session.run(None, {name: value for name, value in feed.items() if name in names})


def fed(bundle, seed=0):
    random = np.random.default_rng(seed)
    given = ort.InferenceSession(bundle.network("unet")).get_inputs()
    feed = {one.name: random.standard_normal(one.shape).astype(np.float32) for one in given}
    return {**feed, "timestep": np.array([601.0, 33.0], np.float32)}


def test_exported_the_whole_is_the_unet_of_a_bundle_without_to_the_bit(sources, tmp_path):
    plain = exported(sources["sd15"], tmp_path / "plain")
    bundle = exported(sources["sd15"], tmp_path / "bundle", deep=1)
    feed = fed(plain)
    output, deep = run(bundle.network("unet"), feed)
    assert np.array_equal(output, run(plain.network("unet"), feed)[0])
    (shallow,) = run(bundle.network("unet_shallow"), {**feed, "deep": deep})
    np.testing.assert_allclose(shallow, output, atol=1e-5)
    assert bundle.network("unet_shallow").stat().st_size < bundle.network("unet").stat().st_size / 4
    assert bundle.about.splits and not plain.about.splits
    with pytest.raises(BundleError, match="has no network 'unet_shallow': its UNet is not split"):
        plain.network("unet_shallow")


def test_in_half_precision_the_feature_is_single_and_a_program_of_torch_gives_the_same(sources, tmp_path):
    """`write_network` compares both files with torch."""
    unet = open_checkpoint(str(sources["sd-turbo"])).unet
    network, split = UNet(unet), DeepSplit(unet, 2)
    random = torch.Generator().manual_seed(1)
    x, context = (torch.randn(shape, generator=random) for shape in ((1, 4, 8, 9), (1, 77, 32)))
    inputs = {"x": x, "timestep": torch.tensor([801.0]), "context": context}
    with torch.no_grad():
        inputs["deep"] = split.whole(network)(*inputs.values())[1]
    path, half = tmp_path / "unet_shallow.onnx", "half-with-single-products"
    written = write_network(path, split.shallow(network), inputs, ["output"], half, program=True)
    assert [one.target for one in written.agreements] == ["onnx", "torch"]
    assert ort.InferenceSession(path).get_inputs()[-1].type == "tensor(float)"
    weights = sum(one.numel() for one in unet.parameters()) - split.unused
    assert all(file.stat().st_size < 8 * weights + 200_000 for file in written.files.values()), "no deep weights"


def test_a_live_lora_stays_live_in_both_parts(sources, tmp_path):
    checkpoint = open_checkpoint(str(sources["sd15"]))
    names = ("mid_block.attentions.0.proj_in", "up_blocks.3.attentions.1.proj_in")  # one deep, one shallow
    layers = {f"lora_unet_{name.replace('.', '_')}": checkpoint.unet.get_submodule(name) for name in names}
    parts = [make.halves(stem, layer, 3, ("lora_down", "lora_up")) for stem, layer in layers.items()]
    save_file({name: tensor for part in parts for name, tensor in part.items()}, tmp_path / "ink.safetensors")
    live = attach_loras(checkpoint, [Lora(tmp_path / "ink.safetensors", 1.0)])
    network, split = LiveNetwork(UNet(checkpoint.unet), live.unet), DeepSplit(checkpoint.unet, 1)
    inputs = [torch.ones(1, 4, 8, 8), torch.tensor([801.0]), torch.ones(1, 77, 32)]
    on, off = torch.ones(1, 1), torch.zeros(1, 1)
    with torch.no_grad():
        wanted, deep = split.whole(network)(*inputs, on)
        assert torch.equal(split.shallow(network)(*inputs, on, deep), wanted)
        assert not torch.equal(split.shallow(network)(*inputs, off, deep), wanted), "the control: in its own layers"
        assert not torch.equal(split.whole(network)(*inputs, off)[1], deep), "the control: in the deep part"


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"deep": 0}, "--cache-deep 0: expected 1 to 2, layers of this UNet at the latent's size"),
        ({"deep": 3}, "--cache-deep 3: expected 1 to 2"),
    ],
)
def test_a_split_that_the_unet_has_not_is_one_line(sources, tmp_path, changes, says):
    with pytest.raises(ExportError, match=says):
        exported(sources["sd15"], tmp_path / "bundle", **changes)
    assert not list(tmp_path.iterdir())


def test_what_needs_the_deep_part_for_every_frame_is_refused_beside_it():
    for name, changes in {
        "--attention": {"attention": "low"},
        "--control or --adapter": {"controls": [object()]},
    }.items():
        with pytest.raises(ExportError, match=f"--cache-deep 1 with {name}: these need its deep part for every frame"):
            Request(size=ODD, steps=1, deep=1, **changes)
