"""Self-attention over the tokens of earlier frames: exactly off, exactly the rules it stands for, no layer missing."""

import copy
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from support.random_checkpoint import write_random_checkpoint

from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.errors import BundleError
from warpfuse.engine.tensorrt_build import plan_key
from warpfuse.engine.tensorrt_module import TENSORRT_RTX, not_installed
from warpfuse.export.diffusion import attention, published
from warpfuse.export.diffusion.attention import (
    RememberingUNet,
    attach_references,
    layer_names,
    parse_reach,
    pooled,
    typical_references,
)
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.families import WORKING
from warpfuse.export.diffusion.networks import UNet
from warpfuse.export.onnx_writing import ExportError
from warpfuse.export.targets import Targets
from warpfuse.export.torch_program import run_program

ODD = (72, 64)  # the latent's sides do not halve evenly: 9 x 8, 5 x 4, 3 x 2, 2 x 1
EVEN = (128, 64)
ROWS = 2


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: write_random_checkpoint(folder / family, family) for family in WORKING}


@dataclass
class Networks:
    """A UNet as it was, the same with references, and what both are called with."""

    plain: torch.nn.Module
    remembering: RememberingUNet
    layers: tuple
    inputs: dict
    cells: tuple

    def without(self, processors=None):
        """What the UNet gives; processors: of some of its layers, by name."""
        unet = copy.deepcopy(self.plain)
        if processors:
            unet.set_attn_processor({**unet.attn_processors, **processors})
        with torch.no_grad():
            return UNet(unet)(*self.inputs.values())

    def __call__(self, past, weight=1.0, own=1.0):
        """(output, kept). past [rows, P, F]; weight: of every cell, or [rows, P, h, w]."""
        weights = weight if isinstance(weight, torch.Tensor) else torch.full((*past.shape[:2], *self.cells), weight)
        with torch.no_grad():
            return self.remembering(*self.inputs.values(), past, weights, torch.full((len(past), 1), float(own)))

    def noise(self, count=2, seed=0):
        """Tokens of nobody: [rows, count, F]."""
        numbers = self.remembering.numbers
        return torch.randn(ROWS, count, numbers, generator=torch.Generator().manual_seed(seed))

    def tokens(self, past):
        """Layer -> [rows, P, rows of tokens, columns, width]."""
        parts = past.split([layer.kept.numbers for layer in self.layers], 2)
        return {
            layer.name: part.reshape(*past.shape[:2], layer.kept.rows, layer.kept.columns, layer.width)
            for layer, part in zip(self.layers, parts, strict=True)
        }


def networks(source, reach="low", size=(64, 64)):
    checkpoint = open_checkpoint(str(source))
    plain = copy.deepcopy(checkpoint.unet)
    config = plain.config
    random = torch.Generator().manual_seed(1)
    cells = (size[1] // 8, size[0] // 8)
    inputs = {
        "x": torch.randn(ROWS, 4, *cells, generator=random),
        "timestep": torch.tensor([801.0, 33.5]),
        "context": torch.randn(ROWS, 77, config.cross_attention_dim, generator=random),
    }
    if config.addition_embed_type:
        inputs |= {"pooled": torch.randn(ROWS, 32, generator=random), "time_ids": torch.ones(ROWS, 6)}
    unet = UNet(checkpoint.unet)
    references = attach_references(checkpoint.unet, reach, unet, inputs)
    return Networks(plain, RememberingUNet(unet, references), references.layers, inputs, cells)


@pytest.fixture(scope="module")
def sd15(sources):
    return networks(sources["sd15"])


class Over:
    """A layer of diffusers that attends over a context, as text is attended over; with its own tokens or without."""

    def __init__(self, context, own):
        self.context, self.own = context, own

    def __call__(self, attn, hidden_states, *_, **__):
        context = torch.cat((hidden_states, self.context), 1) if self.own else self.context
        return AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states=context)


def over(tokens, own):
    """A processor for each layer: over these tokens, [rows, P, ...] each."""
    return {f"{name}.processor": Over(part.flatten(1, -2), own) for name, part in tokens.items()}


def near(a, b, within=1e-5):
    return (a - b).abs().max().item() < within * b.abs().max().item()


@pytest.mark.parametrize("size", [EVEN, ODD])
@pytest.mark.parametrize("family", WORKING)
def test_at_weight_0_it_is_the_network_without(family, size, sources):
    """Within rounding: with more keys torch sums a softmax otherwise. As an ONNX file it is to the bit, below."""
    net = networks(sources[family], "all", size)
    assert near(net(net.noise(), 0.0)[0], net.without(), 1e-6)
    assert not near(net(net.noise(), 1.0)[0], net.without(), 5e-3), "the control: at 1 it is another"


def test_own_0_and_two_references_replace_the_tokens_as_rerender_does(sd15):
    past = sd15.noise()
    wanted = sd15.without(over(sd15.tokens(past), own=False))
    assert near(sd15(past, own=0.0)[0], wanted)
    assert not near(sd15(past, own=1.0)[0], wanted, 1e-2), "the control: its own tokens are among them"


def test_a_reference_of_weight_1_extends_the_tokens_as_streamv2v_does(sd15):
    past = sd15.noise(1)
    wanted = sd15.without(over(sd15.tokens(past), own=True))
    assert near(sd15(past)[0], wanted)
    assert not near(sd15(past, weight=0.1)[0], wanted, 1e-3), "the control: at another weight"


@pytest.mark.parametrize("own, weight", [(1.0, 1.0), (0.5, 0.5), (0.0, 1.0), (1.0, 0.3)])
def test_a_frame_that_is_its_own_reference_is_unchanged(sd15, own, weight):
    """Each key twice is no key twice, whatever each of the two counts."""
    kept = sd15(sd15.noise(), 0.0)[1]
    assert near(sd15(torch.stack((kept, kept), 1), weight, own)[0], sd15.without())
    other = torch.stack((kept, kept.flip(0)), 1)
    assert not near(sd15(other, weight, own)[0], sd15.without(), 1e-3), "the control: tokens of another row"


def test_a_cell_of_weight_0_is_a_token_that_is_not_there(sd15):
    past, weight = sd15.noise(), torch.ones(ROWS, 2, *sd15.cells)
    weight[..., : sd15.cells[1] // 2] = 0
    right = {name: part[..., part.shape[3] // 2 :, :] for name, part in sd15.tokens(past).items()}
    assert near(sd15(past, weight)[0], sd15.without(over(right, own=True)))
    left = {name: part[..., : part.shape[3] // 2, :] for name, part in sd15.tokens(past).items()}
    assert not near(sd15(past, weight)[0], sd15.without(over(left, own=True)), 1e-3), "the control: the other half"


@pytest.mark.parametrize("size", [(64, 64), ODD])
def test_merged_tokens_of_even_blocks_are_those_not_merged(sources, size, monkeypatch):
    wide = networks(sources["sd15"], "low+", size)
    monkeypatch.setattr(attention, "MOST_TOKENS", 0)
    merged = networks(sources["sd15"], "low+", size)
    assert all(layer.merged for layer in merged.layers) and not any(layer.merged for layer in wide.layers)
    assert merged.remembering.numbers < 0.5 * wide.remembering.numbers
    few = merged.noise()
    blocks = merged.tokens(few)
    spread = []
    for layer in wide.layers:
        every = blocks[layer.name].repeat_interleave(2, 2).repeat_interleave(2, 3)
        spread.append(every[:, :, : layer.rows, : layer.columns].reshape(ROWS, 2, -1))
    weight = torch.rand(ROWS, 2, 1, 1, generator=torch.Generator().manual_seed(3)).expand(-1, -1, *wide.cells)
    for own in (0.0, 0.7):
        assert near(merged(few, weight, own)[0], wide(torch.cat(spread, 2), weight, own)[0])
    uneven = torch.cat(spread, 2) + 0.5 * wide.noise(seed=4)
    assert not near(merged(few, weight)[0], wide(uneven, weight)[0], 1e-3), "the control: blocks that are not even"


def test_merged_layers_keep_the_mean_of_every_block(sources, monkeypatch):
    wide = networks(sources["sd15"], "low+", ODD)
    monkeypatch.setattr(attention, "MOST_TOKENS", 0)
    merged = networks(sources["sd15"], "low+", ODD)
    fine = wide.tokens(wide(wide.noise(), 0.0)[1][:, None])
    for name, kept in merged.tokens(merged(merged.noise(), 0.0)[1][:, None]).items():
        block = fine[name][0, 0, :2, :2].mean((0, 1))
        corner = fine[name][0, 0, -1, -1] if ODD[0] % 16 and fine[name].shape[2] % 2 else None
        torch.testing.assert_close(kept[0, 0, 0, 0], block, atol=1e-5, rtol=1e-5)
        if corner is not None:
            torch.testing.assert_close(kept[0, 0, -1, -1], corner, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("h, w, factor", [(8, 8, 4), (9, 8, 2), (9, 5, 4), (3, 7, 8)])
def test_pooling_is_the_mean_of_what_there_is_of_a_cell(h, w, factor):
    x = torch.rand(2, 3, h, w, generator=torch.Generator().manual_seed(0))
    found = pooled(x, factor)
    assert found.shape[-2:] == (-(-h // factor), -(-w // factor))
    for i in range(found.shape[-2]):
        for j in range(found.shape[-1]):
            cell = x[..., i * factor : (i + 1) * factor, j * factor : (j + 1) * factor].mean((-2, -1))
            torch.testing.assert_close(found[..., i, j], cell)


def test_a_row_sees_the_references_of_no_other(sd15):
    past, other = sd15.noise(), sd15.noise()
    other[1] = 100 * other[1]
    assert torch.equal(sd15(past)[0][0], sd15(other)[0][0])
    assert not torch.equal(sd15(past)[0][1], sd15(other)[0][1]), "the control: its own it sees"


def test_a_row_that_is_not_finite_leaves_finite_tokens_and_the_others_alone(sd15):
    before = sd15(sd15.noise())
    x = sd15.inputs["x"]
    sd15.inputs["x"] = torch.stack((torch.full_like(x[0], torch.nan), x[1]))
    output, kept = sd15(sd15.noise())
    sd15.inputs["x"] = x
    assert output[0].isnan().any(), "the control: the picture of that row is lost"
    assert kept.isfinite().all()
    assert torch.equal(output[1], before[0][1]) and torch.equal(kept[1], before[1][1])


COUNTS = {"sd15": (6, 9, 9, 16), "sd21": (6, 9, 9, 16), "sdxl": (6, 36, 36, 70), "lcm": (6, 9, 9, 16)}


@pytest.mark.parametrize("family", COUNTS)
def test_the_published_architectures_have_the_layers_that_are_counted(family):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**published.UNETS[family])
    found = {name.removesuffix(".processor") for name in unet.attn_processors if ".attn1." in name}
    assert found == set(layer_names(unet.config, "all"))
    assert tuple(len(layer_names(unet.config, reach)) for reach in ("low", "low+", "up", "all")) == COUNTS[family]
    assert all(name.startswith("up_blocks") for name in layer_names(unet.config, "up"))


@pytest.mark.parametrize(
    "family, reach, side, numbers",
    [
        ("sd15", "low", 512, 3 * 256 * 1280 + 3 * 1024 * 640),
        ("sd15", "low+", 512, 3 * 256 * 1280 + 3 * 1024 * 640 + 3 * 1024 * 320),
        ("sd15", "up", 512, 3 * 256 * 1280 + 3 * 1024 * 640 + 3 * 4096 * 320),
        ("sdxl", "low", 512, 6 * 1024 * 640),
        ("sdxl", "low", 1024, 6 * 1024 * 640),
        ("sdxl", "up", 1024, 30 * 1024 * 1280 + 6 * 4096 * 640),
    ],
)
def test_the_published_architectures_keep_what_was_reckoned(family, reach, side, numbers):
    """Layers times tokens times width; what is fine is merged in "low" and "low+"."""
    config, cells = published.UNETS[family], side // 8
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        inputs = {"x": torch.zeros(1, 4, cells, cells), "timestep": torch.zeros(1)}
        inputs["context"] = torch.zeros(1, 77, config["cross_attention_dim"])
        if "addition_embed_type" in config:
            inputs |= {"pooled": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
        references = attach_references(unet, reach, UNet(unet), inputs)
    assert sum(layer.numbers for layer in references.kept_layers) == numbers


def test_a_layer_more_or_less_than_the_configuration_says_is_refused(sources):
    """Elsewhere a patch that misses layers runs, and does less than it says."""
    checkpoint = open_checkpoint(str(sources["sd15"]))
    unet = UNet(checkpoint.unet)
    inputs = {"x": torch.zeros(1, 4, 8, 8), "timestep": torch.zeros(1), "context": torch.zeros(1, 77, 32)}
    del checkpoint.unet.up_blocks[1].attentions[1].transformer_blocks[0]
    with pytest.raises(ExportError, match=r"has 9 layers of self-attention, its configuration says 10; .*up_blocks\.1"):
        attach_references(checkpoint.unet, "low", unet, inputs)


def test_a_layer_of_another_kind_is_refused(sources):
    checkpoint = open_checkpoint(str(sources["sd15"]))
    layer = checkpoint.unet.up_blocks[2].attentions[0].transformer_blocks[0].attn1
    layer.norm_q = torch.nn.LayerNorm(16)
    inputs = {"x": torch.zeros(1, 4, 8, 8), "timestep": torch.zeros(1), "context": torch.zeros(1, 77, 32)}
    with pytest.raises(ExportError, match=r"up_blocks\.2.* is no plain self-attention \(norm_q\)"):
        attach_references(checkpoint.unet, "low", UNet(checkpoint.unet), inputs)


@pytest.mark.parametrize(
    "text, references, says",
    [("lowest", None, "expected low, low+, up, all"), (None, 2, "no layer sees any. Add --attention low")],
)
def test_what_cannot_be_asked_for_is_one_line(text, references, says):
    with pytest.raises(ExportError, match=says.replace("+", r"\+")):
        parse_reach(text, references)
    assert parse_reach("low+", 1) == "low+"


def test_three_references_are_refused(sources, tmp_path):
    request = Request(size=(64, 64), steps=1, attention="low", references=3)
    with pytest.raises(ExportError, match="--references 3: expected 1 to 2"):
        export_checkpoint(tmp_path / "bundle", open_checkpoint(str(sources["sd15"])), request)


def exported(source, folder, **changes):
    request = Request(**{"size": ODD, "steps": ROWS, "dtype": "fp32", **changes})
    return load_bundle(str(export_checkpoint(folder, open_checkpoint(str(source)), request).folder))


def fed(bundle, weight, own=1.0, seed=0):
    """A feed of the UNet of a bundle with attention, by name."""
    random = np.random.default_rng(seed)
    feed = {}
    for one in ort.InferenceSession(bundle.network("unet")).get_inputs():
        kind = np.float16 if "float16" in one.type else np.float32
        feed[one.name] = random.standard_normal(one.shape).astype(kind)
    feed["timestep"] = np.array([601.0, 33.0], np.float32)
    feed["past_weight"][:], feed["own_weight"][:] = weight, own
    return feed


def run(bundle, feed):
    session = ort.InferenceSession(bundle.network("unet"))
    names = {one.name for one in session.get_inputs()}
    return session.run(None, {name: value for name, value in feed.items() if name in names})


@pytest.mark.parametrize("family", WORKING)
def test_exported_it_is_the_network_without_at_0_to_the_bit_and_says_what_it_keeps(family, sources, tmp_path):
    plain = exported(sources[family], tmp_path / "plain")
    bundle = exported(sources[family], tmp_path / "bundle", attention="all")
    feed = fed(bundle, 0.0)
    output, kept = run(bundle, feed)
    assert np.array_equal(output, run(plain, feed)[0])
    assert np.abs(run(bundle, {**feed, "past_weight": np.ones_like(feed["past_weight"])})[0] - output).max() > 0.01
    about = bundle.about.attention
    assert plain.about.attention is None and about.references == 2
    assert kept.shape == (ROWS, about.numbers) and feed["past"].shape == (ROWS, 2, about.numbers)
    assert [layer.name for layer in about.layers][-1].startswith("up_blocks")


def test_exported_in_half_precision_tokens_are_halves_and_0_is_near(sources, tmp_path):
    wide = exported(sources["sd21"], tmp_path / "wide", attention="low", references=1)
    half = exported(sources["sd21"], tmp_path / "half", attention="low", references=1, dtype="fp16")
    for weight, own in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0)):
        feed = fed(half, weight, own)
        output, kept = run(half, feed)
        wanted = run(wide, {**feed, "past": feed["past"].astype(np.float32)})
        assert kept.dtype == np.float16
        assert np.abs(output - wanted[0]).max() < 0.05 * np.abs(wanted[0]).max()
        assert np.abs(kept - wanted[1]).max() < 0.05 * np.abs(wanted[1]).max()


@pytest.mark.parametrize("dtype, off", [("fp32", 1e-4), ("bf16", 0.1)])
def test_programs_of_torch_give_the_same(sources, tmp_path, dtype, off):
    bundle = exported(
        sources["sd15"], tmp_path / "bundle", attention="low", dtype=dtype, targets=Targets(("onnx", "torch"))
    )
    wide = exported(sources["sd15"], tmp_path / "wide", attention="low")
    feed = fed(wide, 0.7, 0.5)
    wanted = run(wide, feed)
    if dtype == "fp16":
        feed["past"] = feed["past"].astype(np.float16)
    program = bundle.network("unet").with_suffix(".pt2")
    found = run_program(program, {name: torch.from_numpy(value) for name, value in feed.items()})
    assert found["kept"].dtype == (torch.float16 if dtype == "fp16" else torch.float32)
    for name, value in zip(("output", "kept"), wanted, strict=True):
        assert np.abs(found[name].float().numpy() - value).max() < off * np.abs(value).max()


def test_a_plan_for_a_card_is_built_of_it(sources, tmp_path):
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    targets = Targets(("onnx", "tensorrt-rtx"), ("sm89",))
    bundle = exported(sources["sd15"], tmp_path / "bundle", attention="low", dtype="fp16", steps=1, targets=targets)
    key = plan_key(TENSORRT_RTX, bundle.network("unet"), None, "sm89")
    assert ArtifactCache(bundle.folder / "plans").find(key) is not None


def test_live_loras_change_the_keys_of_references_too(lora_bundles, tmp_path):
    from support import lora_bundles as make

    loras = [make.Lora(path) for path in lora_bundles.files.values()]
    live, merged = (
        exported(lora_bundles.source, tmp_path / name, size=make.SIZE, attention="up", loras=given, live=name == "live")
        for name, given in (
            ("live", loras),
            ("merged", [make.Lora(lora_bundles.files[name], scale) for name, scale in make.MERGED_AT.items()]),
        )
    )
    feed = fed(live, 1.0, 0.5)
    feed["lora_scale"][:] = list(make.MERGED_AT.values())
    np.testing.assert_allclose(run(live, feed)[0], run(merged, feed)[0], atol=1e-4, rtol=1e-4)
    off = {**feed, "lora_scale": 0 * feed["lora_scale"]}
    base = {**off, "past_weight": 0 * off["past_weight"], "own_weight": np.ones_like(off["own_weight"])}
    assert np.array_equal(run(live, base)[0], run(load_bundle(str(lora_bundles.base)), base)[0])
    assert np.abs(run(live, off)[0] - run(merged, feed)[0]).max() > 0.05, "the control: they do something"


def test_typical_references_are_of_other_pictures_and_of_every_weight(sd15):
    found = typical_references(sd15.remembering, sd15.inputs, 2, torch.float16)
    own = sd15(sd15.noise(), 0.0)[1]
    assert found["past"].dtype == torch.float16
    assert all((found["past"][:, p].float() - own).abs().max() > 0.1 for p in range(2))
    assert found["past_weight"].min() < 0.3 and found["past_weight"].max() > 0.9


def test_a_description_that_does_not_fit_is_refused(sources, tmp_path):
    bundle = exported(sources["sd15"], tmp_path / "bundle", attention="low")
    path = bundle.folder / "bundle.json"
    path.write_text(path.read_text().replace('"references": 2', '"references": 0'))
    with pytest.raises(BundleError, match=r"attention\.references: .* greater than or equal to 1"):
        load_bundle(str(bundle.folder))
