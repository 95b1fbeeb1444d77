"""Every family becomes a bundle whose networks compute what its diffusers pipeline does."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
from support.random_checkpoint import write_random_checkpoint

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.errors import BundleError
from warpfuse.export.diffusion import bundle_networks as exporting
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.families import WORKING
from warpfuse.export.diffusion.lora.merging import Lora
from warpfuse.export.diffusion.networks import LCM_GUIDANCE, time_ids
from warpfuse.export.onnx_writing import ExportError

WIDTH, HEIGHT, ROWS = 72, 64, 2
PROMPT = "a blue house, Painted in oil 1"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: write_random_checkpoint(folder / family, family) for family in WORKING}


@pytest.fixture(scope="module")
def sd15(sources):
    """Opened once, for what does not change it."""
    return open_checkpoint(str(sources["sd15"]))


def exported(source, folder, **changes):
    request = Request(**{"size": (WIDTH, HEIGHT), "steps": ROWS, **changes})
    return load_bundle(str(export_checkpoint(folder, open_checkpoint(str(source)), request).folder))


def run(path, feed):
    feed = {name: np.asarray(value) for name, value in feed.items()}
    return [torch.from_numpy(found) for found in ort.InferenceSession(path).run(None, feed)]


def tokens_of(bundle, prompt):
    """As a runtime does, by the `tokenizers` library and the description alone."""
    from tokenizers import Tokenizer

    feed = {}
    for name, one in bundle.about.text.inputs.items():
        library = Tokenizer.from_file(str(bundle.tokenizer(name)))
        ids = library.encode(prompt, add_special_tokens=False).ids[: one.length - 2]
        framed = [one.start, *ids, one.end]
        feed[name] = np.array([framed + [one.pad] * (one.length - len(framed))])
    return feed


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of a scheduler of diffusers
@pytest.mark.parametrize("family", WORKING)
def test_the_networks_are_those_of_the_pipeline(family, sources, tmp_path):
    bundle = exported(sources[family], tmp_path / "bundle", dtype="fp32")
    assert (bundle.about.size, bundle.about.batch, bundle.about.styles) == ((WIDTH, HEIGHT), ROWS, {})
    pipe = DiffusionPipeline.from_pretrained(sources[family], low_cpu_mem_usage=False)
    xl = family.startswith("sdxl")

    told = run(bundle.network("text"), tokens_of(bundle, PROMPT))
    encoded = pipe.encode_prompt(PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    torch.testing.assert_close(told[0], encoded[0], atol=1e-4, rtol=1e-4)
    other = run(bundle.network("text"), tokens_of(bundle, "ink"))
    assert (other[0] - encoded[0]).abs().max() > 1e-2  # the control: another prompt

    x = torch.randn(ROWS, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(1))
    timestep = torch.tensor([801.0, 33.5])
    feed = {"x": x, "timestep": timestep, "context": told[0].repeat(ROWS, 1, 1)}
    options = {}
    if xl:
        torch.testing.assert_close(told[1], encoded[2], atol=1e-4, rtol=1e-4)
        feed |= {"pooled": told[1].repeat(ROWS, 1), "time_ids": torch.tensor([bundle.about.text.time_ids] * ROWS)}
        options["added_cond_kwargs"] = {"text_embeds": feed["pooled"], "time_ids": feed["time_ids"]}
    if family == "lcm":
        w = torch.tensor([LCM_GUIDANCE - 1] * ROWS)
        options["timestep_cond"] = pipe.get_guidance_scale_embedding(w, pipe.unet.config.time_cond_proj_dim)
    with torch.no_grad():
        wanted = pipe.unet(x, timestep, feed["context"], return_dict=False, **options)[0]
        rgb = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))
        latent = pipe.vae.encode(2 * rgb - 1).latent_dist.mode()
        shown = pipe.vae.decode(latent).sample / 2 + 0.5
    (output,) = run(bundle.network("unet"), feed)
    torch.testing.assert_close(output, wanted, atol=1e-3, rtol=1e-3)
    assert (run(bundle.network("unet"), {**feed, "timestep": timestep.flip(0)})[0] - wanted).abs().max() > 1e-2
    torch.testing.assert_close(run(bundle.network("encoder"), {"rgb": rgb})[0], latent, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        run(bundle.network("decoder"), {"latent": latent})[0], shown.clamp(0, 1), atol=1e-4, rtol=1e-4
    )
    assert bundle.about.latent.scale == pipe.vae.config.scaling_factor


def test_time_ids_are_those_of_the_pipeline(sources):
    pipe = DiffusionPipeline.from_pretrained(sources["sdxl"], low_cpu_mem_usage=False)
    wanted = pipe._get_add_time_ids((HEIGHT, WIDTH), (0, 0), (HEIGHT, WIDTH), torch.float32, 32)
    assert time_ids(WIDTH, HEIGHT) == tuple(wanted[0].tolist())


@pytest.mark.parametrize("family", ["sd-turbo", "sdxl"])
def test_half_precision_is_in_the_graph_and_near(family, sources, tmp_path):
    lines = []
    request = Request(size=(WIDTH, HEIGHT), steps=ROWS, check=True)
    bundle = export_checkpoint(tmp_path / "half", open_checkpoint(str(sources[family])), request, lines.append)
    graph = onnx.load(bundle.network("unet")).graph
    kinds = {tensor.data_type for tensor in graph.initializer if tensor.dims and np.prod(tensor.dims) > 512}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
    networks = ["text", "encoder", "decoder", "unet"]
    assert [line.partition(":")[0] for line in lines[:4]] == [line.split()[0] for line in lines[5:]] == networks
    assert "max error" in lines[4] and all(line.endswith("agrees") for line in lines[5:])


def test_a_network_over_the_tolerance_is_told_and_nothing_is_written(sd15, tmp_path, monkeypatch):
    """The control of every test above that an export passed."""
    monkeypatch.setattr("warpfuse.export.diffusion.written.TOLERANCE", {"single": 1e-9})
    lines = []
    request = Request(size=(64, 64), steps=1, dtype="fp32", check=True)
    with pytest.raises(ExportError, match="over the tolerance: text, encoder, decoder, unet"):
        export_checkpoint(tmp_path / "off", sd15, request, lines.append)
    assert len(lines) == 9 and all("OVER THE TOLERANCE" in line for line in lines[5:])
    with pytest.raises(ExportError, match=r"text\.onnx: context is off by"):
        export_checkpoint(tmp_path / "off", sd15, Request(size=(64, 64), steps=1, dtype="fp32"))
    assert list(tmp_path.iterdir()) == []


def test_large_weights_lie_in_one_file_beside_the_network(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(
        exporting.write_network, "__kwdefaults__", {"measured": False, "program": False, "external_bytes": 1000}
    )
    bundle = exported(sources["sd15"], tmp_path / "large")
    names = {path.name for path in bundle.folder.iterdir()}
    networks = {f"{kind}.onnx" for kind in ("text", "encoder", "decoder", "unet")}
    assert names == networks | {f"{name}.data" for name in networks} | {"tokenizer.json", "bundle.json"}
    assert names - {"bundle.json"} == set(bundle.about.files)
    assert len({path.stat().st_mode for path in bundle.folder.iterdir()}) == 1  # one user's bundle is another's too
    rgb = torch.rand(1, 3, HEIGHT, WIDTH)
    assert run(bundle.network("encoder"), {"rgb": rgb})[0].shape == (1, 4, HEIGHT // 8, WIDTH // 8)
    (bundle.folder / "unet.onnx.data").unlink()
    with pytest.raises(BundleError, match=r"unet\.onnx\.data is missing"):
        load_bundle(str(bundle.folder))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"size": (60, 64)}, "multiples of 8 of 64 or more"),
        ({"size": (68, 64)}, "multiples of 8 of 64 or more"),
        ({"steps": 0}, "expected 1 to 4"),
        ({"vae": "nowhere.safetensors"}, "expected taesd, full, a folder"),
        ({"solver": "magic"}, "no solver is called 'magic'"),
    ],
)
def test_a_request_out_of_range_is_one_line_and_leaves_nothing(sd15, tmp_path, changes, says):
    with pytest.raises(ExportError, match=says) as caught:
        export_checkpoint(tmp_path / "bad", sd15, Request(**{"size": (64, 64), "steps": 1, **changes}))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_refused_before_the_work(sd15, tmp_path, monkeypatch):
    (tmp_path / "dear.jpg").write_bytes(b"...")
    monkeypatch.setattr(exporting, "write_network", None)  # calling it would fail otherwise
    with pytest.raises(BundleError, match="not a bundle"):
        export_checkpoint(tmp_path, sd15, Request(size=(64, 64), steps=1))


def test_a_full_disk_is_one_line_and_leaves_nothing(sd15, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_network", full)
    with pytest.raises(ExportError, match="No space left on device"):
        export_checkpoint(tmp_path / "full", sd15, Request(size=(64, 64), steps=1))
    assert list(tmp_path.iterdir()) == []


def test_the_tiny_autoencoder_takes_the_place_of_the_full_one(sd15, tmp_path):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    narrow = {"encoder_block_out_channels": (16,) * 4, "decoder_block_out_channels": (16,) * 4}
    tiny = AutoencoderTiny(**narrow, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).eval()
    tiny.save_pretrained(tmp_path / "taesd")
    request = Request(size=(64, 64), steps=1, vae=str(tmp_path / "taesd"), dtype="fp32")
    bundle = export_checkpoint(tmp_path / "bundle", sd15, request)
    assert (bundle.about.latent.scale, bundle.about.latent.downscale) == (1.0, 8)
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        latent = tiny.encode(2 * rgb - 1).latents
        shown = (tiny.decode(latent).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(run(bundle.network("encoder"), {"rgb": rgb})[0], latent, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(run(bundle.network("decoder"), {"latent": latent})[0], shown, atol=1e-4, rtol=1e-4)


def test_a_lora_is_in_the_network_that_is_written(sources, tmp_path):
    layer = "mid_block.attentions.0.proj_in"
    unet = DiffusionPipeline.from_pretrained(sources["sd15"], low_cpu_mem_usage=False).unet
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    feed = {"x": x, "timestep": torch.tensor([500.0]), "context": torch.ones(1, 77, 32)}
    weight = unet.get_submodule(layer).weight
    down, up = torch.randn(2, *weight.shape[1:]), torch.randn(weight.shape[0], 2, 1, 1)
    save_file({f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    lora = Lora(tmp_path / "lora.safetensors", 0.5)
    bundle = exported(sources["sd15"], tmp_path / "out", size=(64, 64), steps=1, dtype="fp32", loras=[lora])
    assert "LoRA lora.safetensors at 0.5" in bundle.about.source and str(tmp_path) not in bundle.about.source
    (found,) = run(bundle.network("unet"), feed)
    with torch.no_grad():
        plain = unet(x, feed["timestep"], feed["context"]).sample
        weight += 0.5 * torch.einsum("or,r...->o...", up.flatten(1), down)
        wanted = unet(x, feed["timestep"], feed["context"]).sample
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    assert (found - plain).abs().max() > 1e-2  # the control: without it


def test_the_description_has_the_licence_of_the_model_card(sources, tmp_path):
    source = write_random_checkpoint(tmp_path / "carded", "sd15", seed=1)
    (source / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n# Card\n")
    bundle = exported(source, tmp_path / "bundle", prompt="ink")
    assert bundle.about.licence == "creativeml-openrail-m"
    assert bundle.about.text.default_prompt == "ink"
    assert "sd15" in json.loads((bundle.folder / "bundle.json").read_text())["source"]
