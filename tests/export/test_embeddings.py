"""A prompt that names an embedding is the pipeline's of diffusers that has it loaded; another file is one line."""

import copy
import json

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
from support.random_checkpoint import write_random_checkpoint

from warpfuse.engine.bundle import load_bundle
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.embeddings import Embedding, add_embeddings, parse_embedding
from warpfuse.export.onnx_writing import ExportError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import open_prompts
from warpfuse.graph.runtime.engines import Engines

DRAWS = torch.Generator().manual_seed(0)


def draw(*shape):
    return 0.3 * torch.randn(*shape, generator=DRAWS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """family -> its folder. The second text encoder is configured as published ones are, whose pooling goes astray."""
    root, known = tmp_path_factory.mktemp("checkpoints"), {}

    def of(family):
        if family not in known:
            known[family] = write_random_checkpoint(root / family, family)
            path = known[family] / "text_encoder_2" / "config.json"
            if path.is_file():
                path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": 2}))
        return known[family]

    return of


@pytest.fixture(scope="module")
def sd15(sources):
    return open_checkpoint(str(sources("sd15")))


def told(bundle, prompt):
    said = []
    encode = open_prompts(
        validate({"bundle": str(bundle.folder)}), bundle, Engines("onnxruntime", "cpu", 1), said.append
    )
    try:
        return encode(prompt).given, said
    finally:
        encode.close()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_prompt_with_an_embedding_is_the_pipelines(family, sources, tmp_path):
    source, xl = sources(family), family == "sdxl"
    vectors = [draw(3, 32) for _ in range(1 + xl)]
    file = tmp_path / "cat.safetensors"
    save_file(dict(zip(("clip_l", "clip_g"), vectors, strict=True)) if xl else {"emb_params": vectors[0]}, file)
    request = Request((64, 64), 1, dtype="fp32", embeddings=[Embedding(file, "furry")])
    bundle = load_bundle(str(export_checkpoint(tmp_path / "bundle", open_checkpoint(str(source)), request).folder))
    assert "embedding cat.safetensors" in bundle.about.source

    pipe = DiffusionPipeline.from_pretrained(source, low_cpu_mem_usage=False)
    towers = [(pipe.tokenizer, pipe.text_encoder)] + ([(pipe.tokenizer_2, pipe.text_encoder_2)] if xl else [])
    for (tokenizer, encoder), own in zip(towers, vectors, strict=True):
        for module in encoder.modules():  # else it pools at the highest token, which is the embedding's
            if getattr(module, "eos_token_id", None) == 2:
                module.eos_token_id = tokenizer.eos_token_id
        pipe.load_textual_inversion(own, token="<furry>", tokenizer=tokenizer, text_encoder=encoder)
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    with torch.no_grad():
        wanted = pipe.encode_prompt("blue <furry> in oil", **options)
        other = pipe.encode_prompt("blue in oil", **options)
    for prompt in ("blue embedding:furry in oil", "blue furry in oil"):
        given, said = told(bundle, prompt)
        assert said == []
        torch.testing.assert_close(given["context"], wanted[0], atol=2e-4, rtol=1e-3)
        assert (given["context"] - other[0]).abs().max() > 1e-2, "the control: without it"
        if xl:
            torch.testing.assert_close(given["pooled"], wanted[2], atol=2e-4, rtol=1e-3)
    plain, _ = told(bundle, "blue in oil")
    torch.testing.assert_close(plain["context"], other[0], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "tensors, names",
    [
        ({"emb_params": draw(2, 32)}, {"cat": 2}),
        ({"string_to_param.*": draw(2, 32)}, {"cat": 2}),
        ({"<furry>": draw(32)}, {"<furry>": 1}),
        ({"<s0>": draw(32), "<s1>": draw(1, 32)}, {"<s0>": 1, "<s1>": 1}),
        ({"clip_l": draw(4, 32)}, {"cat": 4}),
        ({"emb_params": draw(2, 32).to(torch.float8_e4m3fn)}, {"cat": 2}),
        ({"lora_unet_x.lora_down.weight": draw(2, 2), "bundle_emb.fur.emb_params": draw(2, 32)}, {"fur": 2}),
        ({"bundle_emb.a.clip_l": draw(2, 32), "bundle_emb.b.string_to_param.*": draw(1, 32)}, {"a": 2, "b": 1}),
    ],
)
def test_files_of_every_maker_are_read(sd15, tmp_path, tensors, names):
    checkpoint, lines = copy.deepcopy(sd15), []
    save_file(tensors, tmp_path / "cat.safetensors")
    rows = checkpoint.text[0].get_input_embeddings().weight.shape[0]
    (found,) = add_embeddings(checkpoint, [Embedding(tmp_path / "cat.safetensors")], lines.append)
    assert {name: len(tokens) for name, tokens in found.items()} == names and len(lines) == len(names)
    tokens = [token for own in found.values() for token in own]
    assert tokens == list(range(rows, rows + len(tokens)))
    expected = torch.cat([one.float().reshape(-1, 32) for key, one in tensors.items() if "lora" not in key])
    assert torch.equal(checkpoint.text[0].get_input_embeddings().weight[rows:], expected)


@pytest.mark.parametrize("prefix", ["", "bundle_emb.fur."])
def test_vectors_of_other_places_are_left_out_and_named(sd15, tmp_path, prefix):
    save_file({f"{prefix}clip_l": draw(2, 32), f"{prefix}t5xxl": draw(2, 64)}, tmp_path / "cat.safetensors")
    lines = []
    add_embeddings(copy.deepcopy(sd15), [Embedding(tmp_path / "cat.safetensors")], lines.append)
    assert lines[0] == f"cat.safetensors: left out {prefix}t5xxl: of no text encoder here" and len(lines) == 2


@pytest.mark.parametrize(
    "tensors, token, says",
    [
        ({"emb_params": draw(2, 768)}, None, "its vectors have 768 numbers, as of SD 1.5"),
        ({"clip_l": draw(2, 32), "clip_g": draw(2, 32)}, None, "has clip_l and clip_g; sd15 has 1 text encoders"),
        ({"emb_params": draw(76, 32)}, None, "expected 1 to 75 finite vectors, got 76"),
        ({"emb_params": draw(1, 32) / 0}, None, "finite vectors"),
        ({"lora_unet_x.lora_down.weight": draw(2, 32)}, None, "is no embedding: lora_unet_x"),
        ({"<s0>": draw(32), "<s1>": draw(32)}, "cat", "the file has <s0>, <s1>. Leave out the token"),
        ({"two words": draw(32)}, None, "no prompt can name 'two words'.*FILE.safetensors:TOKEN"),
        ({"A": draw(32), "a": draw(32)}, None, "two are called 'a'"),
        ({"emb_params": torch.zeros(2, 32, dtype=torch.int8)}, "", "no prompt can name"),
    ],
)
def test_one_that_does_not_fit_is_one_line_and_changes_nothing(sd15, tmp_path, tensors, token, says):
    save_file(tensors, tmp_path / "cat.safetensors")
    before = sd15.text[0].get_input_embeddings().weight
    with pytest.raises(ExportError, match=says) as caught:
        add_embeddings(sd15, [Embedding(tmp_path / "cat.safetensors", token)])
    assert "\n" not in str(caught.value)
    assert sd15.text[0].get_input_embeddings().weight is before


def test_two_text_encoders_need_vectors_for_both(sources, tmp_path):
    checkpoint = open_checkpoint(str(sources("sdxl")))
    for tensors, says in (
        ({"emb_params": draw(2, 32)}, "sdxl needs clip_l and clip_g"),
        ({"clip_l": draw(2, 32)}, "has clip_l; sdxl has 2 text encoders"),
        ({"clip_l": draw(2, 32), "clip_g": draw(3, 32)}, "differ in how many"),
    ):
        save_file(tensors, tmp_path / "cat.safetensors")
        with pytest.raises(ExportError, match=says):
            add_embeddings(checkpoint, [Embedding(tmp_path / "cat.safetensors")])


def test_a_pickled_one_is_refused_unopened(sd15, tmp_path):
    (tmp_path / "cat.pt").write_bytes(b"cos\nsystem\n")
    with pytest.raises(ExportError, match=r"pickled ones .* are refused"):
        add_embeddings(sd15, [Embedding(tmp_path / "cat.pt")])


def test_the_token_follows_a_colon(tmp_path):
    path = tmp_path / "cat.safetensors"
    path.write_bytes(b"")
    assert parse_embedding(f"{path}") == Embedding(path)
    assert parse_embedding(f"{path}:<furry>") == Embedding(path, "<furry>")
    with pytest.raises(ExportError, match="is no file"):
        parse_embedding(f"{path}x")
    with pytest.raises(ExportError, match="no prompt can name"):
        parse_embedding(f"{path}:two words")
