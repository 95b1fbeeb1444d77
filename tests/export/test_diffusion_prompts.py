"""What a bundle makes of a prompt is ComfyUI's formula over the text encoders of transformers, for one and for two.

z of a token = z_empty + w (z - z_empty),    chunks of 75 tokens side by side,    pooled of the first chunk
"""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from diffusers import DiffusionPipeline
from support.random_checkpoint import write_random_checkpoint

from warpfuse.engine.bundle import load_bundle
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.onnx_writing import ExportError
from warpfuse.graph.pipeline import Pipeline
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import open_prompts
from warpfuse.graph.runtime.engines import Engines

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # theirs, under NumPy 2
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SIZE, ROOM = (72, 64), 75
LONG = ["blue"] * 70 + ["oil", "ink"] * 10  # one token each
FAMILIES = ("sd15", "sd21", "sdxl")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(family, chunks) -> the folder of its checkpoint and its bundle, when first asked for."""
    folder, known = tmp_path_factory.mktemp("prompts"), {}

    def of(family, chunks):
        if (family, chunks) not in known:
            source = folder / family
            if not source.exists():
                write_random_checkpoint(source, family)
            request = Request(size=SIZE, steps=1, dtype="fp32", chunks=chunks)
            bundle = export_checkpoint(folder / f"{family}-{chunks}", open_checkpoint(str(source)), request)
            known[family, chunks] = source, load_bundle(str(bundle.folder))
        return known[family, chunks]

    return of


@pytest.fixture
def prompts():
    """bundle -> what turns its prompts into conditioning, as a run opens it, and what it said."""
    opened, said = [], []

    def of(bundle):
        engines = Engines("onnxruntime", "cpu", 1)
        opened.append(open_prompts(validate({"bundle": str(bundle.folder)}), bundle, engines, said.append))
        return opened[-1], said

    yield of
    for one in opened:
        one.close()


class Reference:
    """A prompt given as chunks of (words, weight) by hand, through transformers alone."""

    def __init__(self, source):
        pipe = DiffusionPipeline.from_pretrained(source, low_cpu_mem_usage=False)
        self.xl = hasattr(pipe, "tokenizer_2")
        self.encoders = [(pipe.tokenizer, pipe.text_encoder)]
        if self.xl:
            self.encoders.append((pipe.tokenizer_2, pipe.text_encoder_2))

    @torch.no_grad()
    def __call__(self, *chunks):
        contexts = []
        for number, (tokenizer, encoder) in enumerate(self.encoders):
            contexts.append(torch.cat([self.chunk(tokenizer, encoder, chunk) for chunk in chunks], dim=1))
            if number:
                pooled = encoder(self.tokens(tokenizer, chunks[0])[0]).text_embeds
        return {"context": torch.cat(contexts, dim=2)} | ({"pooled": pooled} if self.xl else {})

    def chunk(self, tokenizer, encoder, pieces):
        (tokens, weights), (nothing, _) = self.tokens(tokenizer, pieces), self.tokens(tokenizer, [])
        z, z_empty = self.hidden(encoder, tokens), self.hidden(encoder, nothing)
        for at, weight in enumerate(weights):
            z[0, at] = (z[0, at] - z_empty[0, at]) * weight + z_empty[0, at]
        return z

    def hidden(self, encoder, tokens):
        if not self.xl:
            return encoder(tokens).last_hidden_state
        return encoder(tokens, output_hidden_states=True).hidden_states[-2]

    def tokens(self, tokenizer, pieces):
        row, weights = [tokenizer.bos_token_id], [1.0]
        for words, weight in pieces:
            ids = tokenizer(words, add_special_tokens=False).input_ids
            row += ids
            weights += [weight] * len(ids)
        row.append(tokenizer.eos_token_id)
        return torch.tensor([row + [tokenizer.pad_token_id] * (77 - len(row))]), weights


def close(given, wanted):
    for name, tensor in wanted.items():
        torch.testing.assert_close(given[name], tensor, atol=2e-4, rtol=1e-3)


def apart(given, wanted):
    return (given["context"] - wanted["context"]).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_comfyuis_formula(family, made, prompts):
    source, bundle = made(family, 1)
    (encode, said), reference = prompts(bundle), Reference(source)
    given = encode("an (old house:1.3), ((blue)) paint! (and (oil:0.4) wood) [x]").given
    pieces = [("an", 1), ("old house", 1.3), (",", 1), ("blue", 1.1 * 1.1), ("paint!", 1), ("and", 1.1), ("oil", 0.4)]
    pieces += [("wood", 1.1), ("[x]", 1)]
    close(given, reference(pieces))
    assert apart(given, reference([(words, 1) for words, _ in pieces])), "the control: without weights"
    assert given["context"].shape[1] == 77
    assert len(said) == 1 and "'[x]' is taken as text" in said[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_prompt_and_break_go_into_chunks(family, made, prompts):
    source, bundle = made(family, 3)
    (encode, said), reference = prompts(bundle), Reference(source)
    text = " ".join(LONG)
    first, rest = [(" ".join(LONG[:ROOM]), 1)], [(" ".join(LONG[ROOM:]), 1)]
    close(encode(f"{text} BREAK (paint:1.2)").given, reference(first, rest, [("paint", 1.2)]))
    close(encode(text).given, reference(first, rest, []))
    close(encode("ink", "blue BREAK oil BREAK (wood:0.5)").unconditional, reference(
        [("blue", 1)], [("oil", 1)], [("wood", 0.5)]
    ))  # fmt: skip
    assert said == []


@pytest.mark.parametrize("family", FAMILIES)
def test_what_does_not_fit_is_told_and_the_rest_is_there(family, made, prompts):
    source, bundle = made(family, 1)
    (encode, said), reference = prompts(bundle), Reference(source)
    close(encode(" ".join(LONG)).given, reference([(" ".join(LONG[:ROOM]), 1)]))
    assert len(said) == 1 and "90 tokens, of which 75 fit" in said[0] and "--prompt-chunks 2" in said[0]


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_and_is_the_mean_of_both_sides(family, made, prompts):
    source, bundle = made(family, 1)
    (encode, _), reference = prompts(bundle), Reference(source)
    house, ink = reference([("old house", 1)]), reference([("ink", 1.2)])
    close(encode("old house :3 AND (ink:1.2)").given, {name: 0.75 * house[name] + 0.25 * ink[name] for name in house})


def run(bundle, conditioning):
    x = torch.randn(1, 4, 8, 9, generator=torch.Generator().manual_seed(1))
    feed = {"x": x, "timestep": torch.tensor([500.0]), **conditioning}
    feed = {name: np.asarray(value) for name, value in feed.items()}
    return torch.from_numpy(ort.InferenceSession(bundle.network("unet")).run(None, feed)[0]), feed


@pytest.mark.parametrize("family, chunks", [("sd15", 2), ("sdxl", 3)])
def test_the_unet_attends_to_every_chunk_and_repeated_ones_are_the_prompt_itself(family, chunks, made, prompts):
    """The UNet of diffusers takes a context of any length: that of several chunks, and one that is not repeated."""
    source, bundle = made(family, chunks)
    (encode, _), reference = prompts(bundle), Reference(source)
    unet = DiffusionPipeline.from_pretrained(source, low_cpu_mem_usage=False).unet
    several = " BREAK ".join(["ink", "blue", "oil"][:chunks])
    shown = {}
    for text, pieces in ((several, [[(word, 1)] for word in several.split(" BREAK ")]), ("ink", [[("ink", 1)]])):
        shown[text], feed = run(bundle, encode(text).given)
        told = reference(*pieces)
        added = (
            {"text_embeds": told["pooled"], "time_ids": torch.from_numpy(feed["time_ids"])} if reference.xl else None
        )
        with torch.no_grad():
            wanted = unet(
                torch.from_numpy(feed["x"]), torch.tensor([500.0]), told["context"], added_cond_kwargs=added
            ).sample
        torch.testing.assert_close(shown[text], wanted, atol=1e-3, rtol=1e-3)
    assert (shown[several] - shown["ink"]).abs().max() > 1e-3, "the control: the second chunk is seen"


def test_a_live_change_of_the_prompt_is_read_by_the_same_grammar_and_told(made, caplog):
    _, bundle = made("sd15", 1)
    picture = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    with Pipeline(bundle=str(bundle.folder), prompt="ink", fusion=0.0, steps=2) as pipeline:
        plain = pipeline.push(picture)
        pipeline.update(prompt="(ink:1.0)")
        assert (pipeline.push(picture) == plain).all() and not caplog.messages
        pipeline.update(prompt="(ink:3.0) <lora:snow:1>")
        for _ in range(3):
            weighted = pipeline.push(picture)
        pipeline.update(strength=0.9)
    assert (weighted != plain).any()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "prompt: '<lora:snow:1>' is left out: this bundle has no live LoRA of that name. It has no live LoRAs;"
        " export it again with --lora FILE --lora-live"
    ]


@pytest.mark.parametrize("chunks", [0, 9])
def test_a_number_of_chunks_out_of_range_is_one_line(chunks, made, tmp_path):
    source, _ = made("sd15", 1)
    with pytest.raises(ExportError, match=f"--prompt-chunks {chunks}: expected 1 to 8"):
        export_checkpoint(tmp_path / "bad", open_checkpoint(str(source)), Request(size=SIZE, steps=1, chunks=chunks))
    assert list(tmp_path.iterdir()) == []
