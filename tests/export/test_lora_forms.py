"""Every form of adapter, under the keys its trainer writes, becomes the weights its formula says."""

import copy
import json
import math
import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from support.original_layout import original_name
from support.random_checkpoint import write_random_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from warpfuse.export.diffusion import published
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.lora.live import attach_loras
from warpfuse.export.diffusion.lora.merging import Lora, merge_lora
from warpfuse.export.diffusion.lora.names import LayerNames
from warpfuse.export.onnx_writing import ExportError

RANK, ALPHA, SCALE = 3, 1.5, 0.5
LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.1.resnets.0.conv1"
NORM = "down_blocks.1.resnets.0.norm1"
CONTEXT = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = "encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The checkpoints by family, opened once."""
    root, known = tmp_path_factory.mktemp("checkpoints"), {}

    def of(family):
        if family not in known:
            known[family] = open_checkpoint(str(write_random_checkpoint(root / family, family)))
        return known[family]

    return of


@pytest.fixture
def checkpoint(opened):
    """One to be changed."""
    return copy.deepcopy(opened("sd15"))


def text_layer(encoder, name=TEXT):
    return dict(encoder.named_modules()).get(name) or encoder.get_submodule(f"text_model.{name}")


DRAWS = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(*shape, generator=DRAWS) * 0.3


def kohya(name):
    return f"lora_unet_{name.replace('.', '_')}"


def merged(checkpoint, tmp_path, tensors, scale=SCALE, metadata=None, config=None):
    """What is said while a file of these tensors is merged; it lies in a folder of its own."""
    lines, folder = [], tmp_path / f"lora{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    path = folder / "ink.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    merge_lora(checkpoint, Lora(path, scale), lines.append)
    return lines


# Forms: (layer's weight) -> (the tensors of a file, by their endings; what is added at scale 1, float64).


def locon(weight):
    down, up = draw(RANK, *weight.shape[1:]), draw(weight.shape[0], RANK, *[1] * (weight.dim() - 2))
    delta = torch.einsum("or,r...->o...", up.flatten(1).double(), down.double())
    return {"lora_down.weight": down, "lora_up.weight": up}, delta * ALPHA / RANK


def locon_with_a_core(weight):
    up, down = draw(weight.shape[0], RANK, 1, 1), draw(RANK, weight.shape[1], 1, 1)
    core = draw(RANK, RANK, *weight.shape[2:])
    delta = torch.einsum("abkl,oa,bi->oikl", core.double(), up.flatten(1).double(), down.flatten(1).double())
    return {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": core}, delta * ALPHA / RANK


def loha(weight):
    width = weight[0].numel()
    tensors = {f"hada_w{n}_a": draw(weight.shape[0], RANK) for n in (1, 2)}
    tensors |= {f"hada_w{n}_b": draw(RANK, width) for n in (1, 2)}
    one, two = (tensors[f"hada_w{n}_a"].double() @ tensors[f"hada_w{n}_b"].double() for n in (1, 2))
    return tensors, (one * two).reshape(weight.shape) * ALPHA / RANK


def loha_with_a_core(weight):
    tensors, product = {}, 1.0
    for n in (1, 2):
        core, a, b = draw(RANK, RANK, *weight.shape[2:]), draw(RANK, weight.shape[0]), draw(RANK, weight.shape[1])
        tensors |= {f"hada_t{n}": core, f"hada_w{n}_a": a, f"hada_w{n}_b": b}
        product = product * torch.einsum("abkl,ao,bi->oikl", core.double(), a.double(), b.double())
    return tensors, product * ALPHA / RANK


def kron(first, second, shape):
    """sum over all places: (o1 o2, i1 i2) = first[o1, i1] second[o2, i2], by hand."""
    first = first.double()
    second = second.double().reshape(second.shape[0], second.shape[1], *shape[2:])
    product = torch.einsum("ab,cd...->acbd...", first, second)
    return product.reshape(shape)


def lokr(first_whole, second_whole, core=False):
    def form(weight):
        out, into, kernel = weight.shape[0], weight.shape[1], weight.shape[2:]
        tensors, ranked = {}, not (first_whole and second_whole)
        if first_whole:
            first = tensors["lokr_w1"] = draw(4, 2)
        else:
            a, b = draw(4, RANK), draw(RANK, 2)
            tensors |= {"lokr_w1_a": a, "lokr_w1_b": b}
            first = a.double() @ b.double()
        if second_whole:
            second = tensors["lokr_w2"] = draw(out // 4, into // 2, *kernel)
        elif core:
            t, a, b = draw(RANK, RANK, *kernel), draw(RANK, out // 4), draw(RANK, into // 2)
            tensors |= {"lokr_t2": t, "lokr_w2_a": a, "lokr_w2_b": b}
            second = torch.einsum("abkl,ao,bi->oikl", t.double(), a.double(), b.double())
        else:
            a, b = draw(out // 4, RANK), draw(RANK, into // 2 * math.prod(kernel))
            tensors |= {"lokr_w2_a": a, "lokr_w2_b": b}
            second = (a.double() @ b.double()).reshape(out // 4, into // 2, *kernel)
        return tensors, kron(first, second, weight.shape) * (ALPHA / RANK if ranked else 1.0)

    return form


def difference(weight):
    tensors = {"diff": draw(*weight.shape)}
    return tensors, tensors["diff"].double()


def with_scalar(weight):
    tensors, delta = locon(weight)
    return {**tensors, "scalar": torch.tensor(0.25)}, delta * 0.25


def dora_of_outputs(weight):
    tensors, delta = locon(weight)
    ones = [1] * (weight.dim() - 1)
    magnitude = draw(weight.shape[0], *ones).abs()
    v = weight.double() + delta
    norm = v.flatten(1).norm(dim=1).reshape(-1, *ones)
    return {**tensors, "dora_scale": magnitude}, magnitude.double() * v / norm - weight.double()


def dora_of_inputs(weight):
    tensors, delta = loha(weight)
    magnitude = draw(1, weight.shape[1], *[1] * (weight.dim() - 2)).abs()
    v = weight.double() + delta
    norm = v.transpose(0, 1).flatten(1).norm(dim=1).reshape(magnitude.shape)
    return {**tensors, "dora_scale": magnitude}, magnitude.double() * v / norm - weight.double()


def ia3_of_outputs(weight):
    factor = draw(weight.shape[0])
    delta = weight.double() * factor.double().reshape(-1, *[1] * (weight.dim() - 1))
    return {"weight": factor, "on_input": torch.tensor(0)}, delta


def ia3_of_inputs(weight):
    factor = draw(1, weight.shape[1], *[1] * (weight.dim() - 2))
    return {"weight": factor, "on_input": torch.tensor(1)}, weight.double() * factor.double()


BOTH = [
    locon, loha, lokr(True, True), lokr(True, False), lokr(False, True), lokr(False, False), difference, with_scalar,
    dora_of_outputs, dora_of_inputs, ia3_of_outputs, ia3_of_inputs,
]  # fmt: skip
FORMS = [(CONV, form) for form in (*BOTH, locon_with_a_core, loha_with_a_core, lokr(True, False, core=True))]
FORMS += [(LINEAR, form) for form in BOTH]


def single_ulp(found, wanted):
    """Of the sum in double precision, rounded once."""
    torch.testing.assert_close(found, wanted.float(), rtol=2e-7, atol=1e-8)


@pytest.mark.parametrize("name, form", FORMS, ids=lambda one: getattr(one, "__qualname__", str(one)))
def test_a_form_is_its_formula(checkpoint, tmp_path, name, form):
    layer = checkpoint.unet.get_submodule(name)
    before = layer.weight.detach().clone()
    endings, delta = form(before)
    tensors = {f"{kohya(name)}.{ending}": tensor for ending, tensor in endings.items()}
    tensors[f"{kohya(name)}.alpha"] = torch.tensor(ALPHA)
    assert merged(checkpoint, tmp_path, tensors) == []
    single_ulp(layer.weight.detach(), before.double() + SCALE * delta)
    assert (SCALE * delta).abs().max() > 1e-3, "the control: it does something"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_narrow_files_are_widened_before_they_are_multiplied(checkpoint, tmp_path, kind):
    layer = checkpoint.unet.get_submodule(LINEAR)
    before = layer.weight.detach().clone()
    down, up = draw(RANK, 32).to(kind), draw(32, RANK).to(kind)
    merged(checkpoint, tmp_path, {f"{kohya(LINEAR)}.lora_down.weight": down, f"{kohya(LINEAR)}.lora_up.weight": up})
    single_ulp(layer.weight.detach(), before.double() + SCALE * up.double() @ down.double())


def test_norms_and_biases_are_added(checkpoint, tmp_path):
    norm, conv = checkpoint.unet.get_submodule(NORM), checkpoint.unet.get_submodule(CONV)
    query = checkpoint.unet.get_submodule(LINEAR)
    before = [one.detach().double() for one in (norm.weight, norm.bias, conv.bias)]
    w, b, bias = draw(*norm.weight.shape), draw(*norm.bias.shape), draw(*conv.bias.shape)
    halves, delta = locon(query.weight.detach())
    up_bias, old = draw(32), query.weight.detach().double()
    assert query.bias is None
    tensors = {f"{kohya(NORM)}.w_norm": w, f"{kohya(NORM)}.b_norm": b, f"{kohya(CONV)}.diff_b": bias}
    tensors |= {f"{kohya(LINEAR)}.{key}": tensor for key, tensor in halves.items()}
    tensors |= {f"{kohya(LINEAR)}.lora_up.bias": up_bias, f"{kohya(LINEAR)}.alpha": torch.tensor(ALPHA)}
    assert merged(checkpoint, tmp_path, tensors) == []
    single_ulp(norm.weight.detach(), before[0] + SCALE * w.double())
    single_ulp(norm.bias.detach(), before[1] + SCALE * b.double())
    single_ulp(conv.bias.detach(), before[2] + SCALE * bias.double())
    single_ulp(query.weight.detach(), old + SCALE * delta)
    single_ulp(query.bias.detach(), SCALE * ALPHA / RANK * up_bias.double())


def test_dora_of_peft_has_a_magnitude_for_each_output(checkpoint, tmp_path):
    for name in (LINEAR, CONV):
        layer = checkpoint.unet.get_submodule(name)
        before, magnitude = layer.weight.detach().clone(), draw(layer.weight.shape[0]).abs()
        halves, delta = locon(before)
        v = before.double() + delta * RANK / ALPHA
        norm = v.flatten(1).norm(dim=1)
        stem = f"unet.{name}"
        shape = (-1,) if name == LINEAR else (1, -1, 1, 1)  # as PEFT has them
        tensors = {
            f"{stem}.lora_A.weight": halves["lora_down.weight"],
            f"{stem}.lora_B.weight": halves["lora_up.weight"],
        }
        tensors[f"{stem}.lora_magnitude_vector.weight"] = magnitude.reshape(shape)
        merged(checkpoint, tmp_path, tensors)
        ratio = (magnitude.double() / norm).reshape(-1, *[1] * (before.dim() - 1))
        single_ulp(layer.weight.detach(), before.double() + SCALE * (ratio * v - before.double()))


def test_ia3_of_peft_scales_what_a_layer_gives(checkpoint, tmp_path):
    conv, linear = checkpoint.unet.conv_in, checkpoint.unet.get_submodule(LINEAR)
    weight, bias, inputs = (one.detach().double() for one in (conv.weight, conv.bias, linear.weight))
    outputs, into = 1 + draw(1, conv.weight.shape[0], 1, 1), 1 + draw(1, 32)
    merged(checkpoint, tmp_path, {"unet.conv_in.ia3_l": outputs, f"unet.{LINEAR}.ia3_l": into}, scale=1.0)
    single_ulp(conv.weight.detach(), weight * outputs.double().reshape(-1, 1, 1, 1))
    single_ulp(conv.bias.detach(), bias * outputs.double().flatten())
    single_ulp(linear.weight.detach(), inputs * into.double())


CONFIGS = {
    "alpha": ({"r": RANK, "lora_alpha": 6}, 6 / RANK),
    "rslora": ({"r": RANK, "lora_alpha": 6, "use_rslora": True}, 6 / math.sqrt(RANK)),
    "alpha_pattern": ({"r": RANK, "lora_alpha": 6, "alpha_pattern": {"attn1.to_q": 12}}, 12 / RANK),
    "alpha_pattern of another": ({"r": RANK, "lora_alpha": 6, "alpha_pattern": {"attn2.to_q": 12}}, 6 / RANK),
    "alpha_pattern as a pattern": ({"r": RANK, "lora_alpha": 6, "alpha_pattern": {r".*attn\d.to_q": 12}}, 12 / RANK),
    "rank_pattern": ({"r": 64, "lora_alpha": 6, "rank_pattern": {"attn1.to_q": RANK}}, 6 / RANK),
    "all": (
        {"r": 64, "lora_alpha": 6, "rank_pattern": {"to_q": RANK}, "alpha_pattern": {"to_q": 9}, "use_rslora": True},
        9 / math.sqrt(RANK),
    ),
}


@pytest.mark.parametrize("place", ["beside", "inside"])
@pytest.mark.parametrize("config, s", CONFIGS.values(), ids=CONFIGS)
def test_the_strength_of_peft_is_its_configurations(checkpoint, tmp_path, config, s, place):
    layer = checkpoint.unet.get_submodule(LINEAR)
    before = layer.weight.detach().clone()
    down, up = draw(RANK, 32), draw(32, RANK)
    stem = f"base_model.model.{LINEAR}" if place == "beside" else f"unet.{LINEAR}"
    flat = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in config.items()})}
    tensors = {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    where = {"config": config} if place == "beside" else {"metadata": flat}
    merged(checkpoint, tmp_path, tensors, **where)
    single_ulp(layer.weight.detach(), before.double() + SCALE * s * up.double() @ down.double())


def test_lokr_of_peft_divides_whole_factors_by_the_configured_rank(checkpoint, tmp_path):
    layer = checkpoint.unet.get_submodule(LINEAR)
    before = layer.weight.detach().clone()
    tensors, delta = lokr(True, True)(before)
    config = {"peft_type": "LOKR", "r": 8, "alpha": 4}
    merged(checkpoint, tmp_path, {f"base_model.model.{LINEAR}.{key}": t for key, t in tensors.items()}, config=config)
    single_ulp(layer.weight.detach(), before.double() + SCALE * delta * 4 / 8)


@pytest.mark.parametrize(
    "config, says",
    [
        ({"r": RANK, "lora_alpha": 6, "init_lora_weights": "pissa"}, "changed the model beside it too"),
        ({"r": RANK, "lora_alpha": "strong"}, "what it says of alpha cannot be read"),
        ({"r": RANK, "lora_alpha": 6, "alpha_pattern": [1]}, "what it says of alpha cannot be read"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(checkpoint, tmp_path, config, says):
    tensors = {f"unet.{LINEAR}.lora_A.weight": draw(RANK, 32), f"unet.{LINEAR}.lora_B.weight": draw(32, RANK)}
    with pytest.raises(ExportError, match=says) as caught:
        merged(checkpoint, tmp_path, tensors, config=config)
    assert "\n" not in str(caught.value)


HALVES = {"down": "lora_down.weight", "up": "lora_up.weight"}
UNET_SPELLINGS = {
    "kohya": f"lora_unet_{LINEAR.replace('.', '_')}",
    "diffusers": f"unet.{LINEAR}",
    "peft": f"base_model.model.{LINEAR}",
    "lycoris": f"lycoris_{LINEAR.replace('.', '_')}",
    "original": "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q",
    "comfy": "diffusion_model.input_blocks.3.1.transformer_blocks.0.attn1.to_q",
    "comfy, whole": "model.diffusion_model.input_blocks.3.1.transformer_blocks.0.attn1.to_q",
}
TEXT_SPELLINGS = {
    "kohya": ("lora_te_text_model_{_}", "lora_te2_text_model_{_}"),
    "kohya, first": ("lora_te1_text_model_{_}", "lora_te2_text_model_{_}"),
    "diffusers": ("text_encoder.text_model.{}", "text_encoder_2.text_model.{}"),
    "onetrainer": ("clip_l.text_model.{}", "clip_g.text_model.{}"),
    "comfy": ("text_encoders.clip_l.transformer.text_model.{}", "text_encoders.clip_g.transformer.text_model.{}"),
    "comfy, short": ("clip_l.transformer.text_model.{}", "clip_g.transformer.text_model.{}"),
}


@pytest.mark.parametrize("stem", UNET_SPELLINGS.values(), ids=UNET_SPELLINGS)
def test_a_layer_of_the_unet_is_found_under_every_name(checkpoint, tmp_path, stem):
    layer = checkpoint.unet.get_submodule(LINEAR)
    before, down, up = layer.weight.detach().double(), draw(RANK, 32), draw(32, RANK)
    merged(checkpoint, tmp_path, {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up})
    single_ulp(layer.weight.detach(), before + SCALE * up.double() @ down.double())


@pytest.mark.parametrize("stems", TEXT_SPELLINGS.values(), ids=TEXT_SPELLINGS)
def test_both_text_encoders_are_found_under_every_name(opened, tmp_path, stems):
    checkpoint = copy.deepcopy(opened("sdxl"))
    tensors, wanted = {}, []
    for stem, encoder in zip(stems, checkpoint.text, strict=True):
        named = stem.replace("{_}", TEXT.replace(".", "_")).format(TEXT)
        down, up = draw(RANK, 32), draw(32, RANK)
        tensors |= {f"{named}.lora_down.weight": down, f"{named}.lora_up.weight": up}
        wanted.append(text_layer(encoder).weight.detach().double() + SCALE * up.double() @ down.double())
    assert merged(checkpoint, tmp_path, tensors) == []
    for encoder, weight in zip(checkpoint.text, wanted, strict=True):
        single_ulp(text_layer(encoder).weight.detach(), weight)


def test_the_oldest_names_of_text_layers_are_those_of_the_unet(checkpoint, tmp_path):
    layer, down, up = text_layer(checkpoint.text[0]), draw(RANK, 32), draw(32, RANK)
    wanted = layer.weight.detach().double() + SCALE * up.double() @ down.double()
    stem = "text_encoder.text_model.encoder.layers.0.self_attn.to_q"
    merged(checkpoint, tmp_path, {f"{stem}_lora.down.weight": down, f"{stem}_lora.up.weight": up})
    single_ulp(layer.weight.detach(), wanted)
    linear = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer"
    merged(checkpoint, tmp_path, {f"{linear}.down.weight": down, f"{linear}.up.weight": up})
    single_ulp(layer.weight.detach(), wanted.float().double() + SCALE * up.double() @ down.double())


def good():
    """Two halves that fit."""
    return {f"{kohya(LINEAR)}.lora_down.weight": draw(RANK, 32), f"{kohya(LINEAR)}.lora_up.weight": draw(32, RANK)}


def of(name, **endings):
    return {f"{kohya(name)}.{HALVES.get(ending, ending)}": tensor for ending, tensor in endings.items()}


LEFT = {
    "bundled embedding": ({"bundle_emb.cat.clip_l": draw(1, 32)}, "bundle_emb.cat.clip_l: it is of an embedding"),
    "nothing known": ({"emb_wild": draw(2)}, "emb_wild: no tensor of a LoRA"),
    "OFT": (of(CONV, oft_blocks=draw(2, 4, 4)), "conv1.oft_blocks: it is of OFT"),
    "GLoRA": ({f"{kohya(CONV)}.a1.weight": draw(2, 4)}, "it is of GLoRA"),
    "T5": ({"lora_te3_encoder.lora_down.weight": draw(2, 4)}, "it is of a T5 text encoder"),
    "no such layer": (
        {"lora_unet_nowhere.lora_down.weight": draw(2, 4), "lora_unet_nowhere.lora_up.weight": draw(4, 2)},
        r"lora_unet_nowhere: .* has no such layer",
    ),
    "another shape": (of(CONV, down=draw(RANK, 9, 3, 3), up=draw(32, RANK, 1, 1)), "conv1: it is .*, the layer is"),
    "another rank": (of(CONV, down=draw(RANK, 32, 3, 3), up=draw(32, 2, 1, 1)), "do not fit each other"),
    "one half": (of(CONV, down=draw(RANK, 32, 3, 3)), "conv1: it has no up"),
    "a part of a LoHa": (of(CONV, hada_w1_a=draw(32, RANK)), "it has no hada_w1_b, hada_w2_a, hada_w2_b"),
    "a part of a LoKr": (of(CONV, lokr_w1=draw(4, 2)), "it has no lokr_w2_a, lokr_w2_b"),
    "no numbers": (of(CONV, down=draw(RANK, 32, 3, 3) / 0, up=draw(32, RANK, 1, 1)), "its numbers are not finite"),
    "a scale alone": (of(CONV, alpha=torch.tensor(1.0)), "it has alpha alone"),
    "a magnitude of another shape": (of(CONV, dora_scale=draw(7, 1, 1, 1)), "7 factors, the layer is"),
    "a bias of another size": (of(NORM, b_norm=draw(5)), "a bias of 5, the layer has"),
    "half known": (
        of(CONV, down=draw(RANK, 32, 3, 3), up=draw(32, RANK, 1, 1), bias_indices=draw(2)), "it is of a sparse bias"
    ),
}  # fmt: skip


@pytest.mark.parametrize("more, says", LEFT.values(), ids=LEFT)
def test_what_cannot_be_merged_is_left_out_alone_and_named(checkpoint, tmp_path, more, says):
    layer, other = checkpoint.unet.get_submodule(LINEAR), checkpoint.unet.get_submodule(CONV)
    tensors, old = good(), other.weight.detach().clone()
    down, up = tensors.values()
    wanted = layer.weight.detach().double() + SCALE * up.double() @ down.double()
    (line,) = merged(checkpoint, tmp_path, {**tensors, **more})
    assert line.startswith("ink.safetensors: left out ")
    assert re.search(says, line), line
    single_ulp(layer.weight.detach(), wanted)
    assert torch.equal(other.weight, old)


@pytest.mark.parametrize("more", [more for more, _ in LEFT.values()], ids=LEFT)
def test_a_file_where_nothing_fits_is_refused(checkpoint, tmp_path, more):
    with pytest.raises(ExportError, match=r"nothing in it fits sd15 .*made for another architecture") as caught:
        merged(checkpoint, tmp_path, more)
    assert "\n" not in str(caught.value)


def test_one_made_for_prompts_of_another_width_is_refused_whole(checkpoint, tmp_path):
    """Else half of an SD 2 LoRA would be merged into SD 1.5: much of it has the same shapes."""
    old = checkpoint.unet.get_submodule(LINEAR).weight.detach().clone()
    with pytest.raises(ExportError, match=r"attn2_to_k: it is .* another architecture than sd15's"):
        merged(checkpoint, tmp_path, {**good(), **of(CONTEXT, down=draw(RANK, 64), up=draw(32, RANK))})
    assert torch.equal(checkpoint.unet.get_submodule(LINEAR).weight, old)


def test_many_of_a_kind_are_one_line(checkpoint, tmp_path):
    more = {f"bundle_emb.cat.{n}.clip_l": draw(1, 32) for n in range(6)}
    (line,) = merged(checkpoint, tmp_path, {**good(), **more})
    assert "and 3 more: it is of an embedding" in line and len(line) < 300


def test_live_ones_take_what_is_low_rank_and_name_the_rest(checkpoint, tmp_path):
    conv, linear = checkpoint.unet.get_submodule(CONV), checkpoint.unet.get_submodule(LINEAR)
    endings, delta = locon_with_a_core(conv.weight.detach())
    tensors = {f"{kohya(CONV)}.{key}": tensor for key, tensor in endings.items()}
    tensors |= {f"{kohya(CONV)}.alpha": torch.tensor(ALPHA), f"{kohya(NORM)}.w_norm": draw(32)}
    tensors |= {f"{kohya(LINEAR)}.{key}": tensor for key, tensor in dora_of_outputs(linear.weight.detach())[0].items()}
    path = tmp_path / "ink.safetensors"
    save_file(tensors, path)
    lines = []
    live = attach_loras(checkpoint, [Lora(path, SCALE)], lines.append)
    assert [line.partition(": left out ")[2].split(": ")[0] for line in lines[:2]] == [kohya(LINEAR), kohya(NORM)]
    assert "DoRA" in lines[0] and "a difference of weights or biases" in lines[1] and "live as 'ink'" in lines[2]
    x = draw(1, conv.weight.shape[1], 8, 8)
    live.unet.give(torch.tensor([[SCALE]]))
    changed = torch.nn.functional.conv2d(
        x.double(), conv.weight.double() + SCALE * delta, conv.bias.double(), padding=1
    )
    torch.testing.assert_close(conv(x), changed.float(), rtol=1e-4, atol=1e-4)
    save_file({f"{kohya(NORM)}.w_norm": draw(32)}, path)
    with pytest.raises(ExportError, match=r"nothing of it can stay live.*without --lora-live to merge it"):
        attach_loras(copy.deepcopy(checkpoint), [Lora(path)])


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_every_layer_of_the_published_architecture_is_found_under_every_name(family):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**published.UNETS[family])
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        text = tuple(
            kind(CLIPTextConfig(**one)) for kind, one in zip(kinds, published.text_configs(family), strict=False)
        )
    layers, seen = LayerNames(unet, text, 2), 0
    attended_up = ["CrossAttn" in kind for kind in unet.config.up_block_types]
    changeable = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
    for name, layer in unet.named_modules():
        if isinstance(layer, changeable):
            original = original_name(name, 2, attended_up)
            stems = [
                f"{prefix}{own.replace('.', '_')}" for prefix in ("lora_unet_", "lycoris_") for own in (name, original)
            ]
            stems += [f"unet.{name}", f"base_model.model.{name}", f"diffusion_model.{original}"]
            assert all(layers.find(stem) is layer for stem in stems), name
            seen += 1
    for encoder, kohya_prefix, others in zip(
        text, ("lora_te1_", "lora_te2_"), (("text_encoder.", "clip_l."), ("text_encoder_2.", "clip_g.")), strict=False
    ):
        for name, layer in encoder.named_modules():
            if isinstance(layer, changeable):
                plain = name.removeprefix("text_model.")
                own = plain if plain == "text_projection" else f"text_model.{plain}"
                stems = [f"{kohya_prefix}{own.replace('.', '_')}", *(f"{prefix}{own}" for prefix in others)]
                assert all(layers.find(stem) is layer for stem in stems), name
                seen += 1
    assert seen > {"sd15": 400, "sdxl": 1300}[family]
