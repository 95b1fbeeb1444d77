"""Prompts: what the network is given for them, framed and in chunks as its text encoder was trained."""

from itertools import permutations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from warpfuse.engine.bundle_parts import LiveLora, Style, TextPrompt
from warpfuse.engine.errors import BundleError
from warpfuse.stages.diffusion.prompts import StylePrompts, TextPrompts, WhenAsked
from warpfuse.stages.errors import StyleError

START, END, PAD, LENGTH = 90, 91, 92, 6
WORDS = {word: number for number, word in enumerate(["an", "old", "ink", "drawing", "of", "rain", "?"])}


class Echo:
    """A text encoder whose context is its tokens; its memory is written again with every call."""

    device, closed = "cpu", False

    def __init__(self):
        self.memory, self.asked = torch.zeros(1, LENGTH, 1), []

    def __call__(self, inputs):
        self.asked.append(inputs["tokens"].tolist()[0])
        self.scales = inputs["lora_scale"].tolist() if "lora_scale" in inputs else None
        self.memory.copy_(inputs["tokens"].float().view(1, LENGTH, 1))
        return {"context": self.memory}

    def close(self):
        self.closed = True


@pytest.fixture
def text(tmp_path):
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    one = {"tokenizer": "tokenizer.json", "length": LENGTH, "start": START, "end": END, "pad": PAD}

    def made(loras=(), say=lambda line: None, embeddings=None, **keys):
        engine = Echo()
        inputs = {"tokens": {**one, "embeddings": embeddings or {}}}
        about = TextPrompt.model_validate({"inputs": inputs, "default_prompt": "ink", **keys})
        return TextPrompts(engine, about, {"tokens": tmp_path / "tokenizer.json"}, loras, say), engine

    return made


def ids(context):
    return context["context"].flatten().tolist()


def test_a_prompt_is_framed_and_filled_up(text):
    prompts, _ = text()
    found = prompts("old ink")
    assert ids(found.given) == [START, WORDS["old"], WORDS["ink"], END, PAD, PAD]
    assert ids(found.unconditional) == [START, END, PAD, PAD, PAD, PAD]


@pytest.mark.parametrize("chunks, remedy", [(1, "--prompt-chunks 2"), (2, None)])
def test_what_does_not_fit_is_named_once_and_a_bundle_of_more_chunks_takes_it(text, chunks, remedy):
    said = []
    prompts, _ = text(say=said.append, chunks=chunks)
    for _ in range(3):
        found = ids(prompts("an old ink drawing of rain").given)
    whole = [START, 0, 1, 2, 3, END, START, WORDS["of"], WORDS["rain"], END, PAD, PAD]
    assert found == whole[: chunks * LENGTH]
    line = "prompt: 6 tokens, of which 4 fit into this bundle: 'of rain' is left out. Export it again with " + str(
        remedy
    )
    assert said == ([line] if remedy else [])


def test_a_prompt_that_no_bundle_takes_is_to_be_made_shorter(text):
    said = []
    text(say=said.append)[0]("", "ink " * 40)
    assert len(said) == 1 and said[0].startswith("negative: 40 tokens, of which 4 fit") and "Make it shorter" in said[0]


@pytest.mark.parametrize(
    "prompt, chunks, wanted",
    [
        ("old", 3, [["old"], ["old"], ["old"]]),
        ("old BREAK ink", 2, [["old"], ["ink"]]),
        ("old BREAK ink", 4, [["old"], ["ink"], ["old"], ["ink"]]),
        ("old BREAK ink", 3, [["old"], ["ink"], []]),
        ("an old ink drawing of BREAK rain", 3, [["an", "old", "ink", "drawing"], ["of"], ["rain"]]),
    ],
)
def test_chunks_are_repeated_or_filled_up_to_those_the_bundle_takes(text, prompt, chunks, wanted):
    said = []
    found = ids(text(say=said.append, chunks=chunks)[0](prompt).given)
    rows = [[START, *(WORDS[word] for word in chunk), END] for chunk in wanted]
    assert found == [n for row in rows for n in row + [PAD] * (LENGTH - len(row))] and said == []


def test_break_that_does_not_fit_is_left_out_before_any_word(text):
    said = []
    prompts, _ = text(say=said.append)
    assert ids(prompts("old BREAK ink").given) == ids(prompts("old ink").given)
    assert len(said) == 1 and "BREAK is left out, its words stay" in said[0] and "--prompt-chunks 2" in said[0]


def test_weights_move_tokens_away_from_those_of_the_empty_prompt(text):
    """Its token at the same place: END at 1, PAD behind."""
    prompts, engine = text()
    found = ids(prompts("(old:3) (ink:0.5) rain").given)
    assert found == [START, END + 3 * (1 - END), PAD + 0.5 * (2 - PAD), WORDS["rain"], END, PAD]
    asked = len(engine.asked)
    assert ids(prompts("old ink rain").given)[1:3] == [1, 2] and len(engine.asked) == asked, "the same tokens"


def test_control_a_prompt_without_weights_asks_for_no_empty_one(text):
    prompts, engine = text(zeros_for_none=True)
    prompts("old ink")
    assert len(engine.asked) == 1
    prompts("old (ink:2)")
    assert len(engine.asked) == 2


def test_parts_are_averaged_by_their_shares(text):
    found = ids(text()[0]("an old :3 AND ink").given)
    an, ink = [START, 0, 1, END, PAD, PAD], [START, 2, END, PAD, PAD, PAD]
    assert found == pytest.approx([0.75 * a + 0.25 * b for a, b in zip(an, ink, strict=True)])


def test_each_of_two_encoders_has_the_weights_of_its_own_tokens(tmp_path):
    """Two tokenizers of which one has a word more; the features of a token are side by side."""
    ones = {}
    for name, words, width in (("tokens", ["ink", "!", "?"], 2), ("tokens_2", ["ink", "?"], 1)):
        tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="?"))
        split = pre_tokenizers.Whitespace() if name == "tokens" else pre_tokenizers.WhitespaceSplit()
        tokenizer.pre_tokenizer = split
        tokenizer.save(str(tmp_path / f"{name}.json"))
        one = {"tokenizer": f"{name}.json", "length": LENGTH, "start": START, "end": END, "pad": PAD}
        ones[name] = {**one, "width": width}

    class Both(Echo):
        def __call__(self, inputs):
            first, second = (inputs[name].float().view(1, LENGTH, 1) for name in ones)
            return {"context": torch.cat((first, first, second), dim=2), "pooled": second[:, 1]}

    about = TextPrompt.model_validate({"inputs": ones})
    found = TextPrompts(Both(), about, {name: tmp_path / f"{name}.json" for name in ones})("ink! (ink:2)").given
    first, _, second = found["context"][0].T.tolist()
    assert first == [START, 0, 1, PAD + 2 * (0 - PAD), END, PAD], "two tokens stand before it"
    assert second == [START, 1, PAD + 2 * (0 - PAD), END, PAD, PAD], "one does"
    assert found["pooled"].item() == 1
    ones["tokens"]["width"] = 5
    wrong = TextPrompt.model_validate({"inputs": ones})
    with pytest.raises(BundleError, match=r"widths of 5 \+ 1, but the text network gives 3 numbers"):
        TextPrompts(Both(), wrong, {name: tmp_path / f"{name}.json" for name in ones})("(ink:2)")


def test_an_embedding_is_the_tokens_of_its_vectors(text):
    said = []
    prompts, _ = text(say=said.append, embeddings={"Rainy": (70, 71)})
    assert ids(prompts("old embedding:rainy ink").given) == [START, 1, 70, 71, 2, END]
    assert ids(prompts("ink, Rainy").given)[3:5] == [70, 71] and said == []
    assert ids(prompts("ink embedding:windy").given) == [START, 2, END, PAD, PAD, PAD]
    assert said == [
        "prompt: 'embedding:windy' is left out: this bundle has no embedding of that name; did you mean 'Rainy'?"
        " It has: Rainy"
    ]


def test_a_prompt_sets_live_loras_for_itself(text):
    said = []
    loras = (LiveLora(name="ink-wash", default=0.5, text=True), LiveLora(name="rain", default=1.0))
    prompts, engine = text(loras, say=said.append)
    found = prompts("old <lora:Ink wash:0.8>", "ink")
    assert found.given["lora_scale"].tolist() == found.unconditional["lora_scale"].tolist() == [[pytest.approx(0.8), 1]]
    assert engine.scales == [[pytest.approx(0.8), 0.0]]
    assert ids(found.given) == [START, WORDS["old"], END, PAD, PAD, PAD]
    assert prompts("old", "ink").given["lora_scale"].tolist() == [[0.5, 1]] and said == []


@pytest.mark.parametrize(
    "prompt, negative, loras, says",
    [
        ("old <lora:snow:1>", "", {}, "prompt: '<lora:snow:1>' is left out: this bundle has no live LoRA of that name"),
        ("old <lora:rain:5>", "", {}, "prompt: '<lora:rain:5>' is left out: expected a scale from -4 to 4"),
        ("old <lora:rain:2>", "", {"rain": 1.0}, "prompt: '<lora:rain:2>' stands in the place of loras.rain = 1"),
        ("old", "ink <lora:rain:2>", {}, "negative: '<lora:rain:2>' is left out: LoRAs are set by the prompt"),
        ("an [old]", "", {}, "prompt: '[old]' is taken as text"),
        ("old", "(ink", {}, "negative: a '(' without its other half is taken as text"),
    ],
)
def test_what_is_left_out_is_told_once(text, prompt, negative, loras, says):
    said = []
    prompts, _ = text((LiveLora(name="rain", default=1.0),), say=said.append)
    for _ in range(3):
        prompts(prompt, negative, loras)
        prompts("ink")
    assert len(said) == 1 and said[0].startswith(says)


def test_a_negative_prompt_that_says_nothing_is_none(text):
    assert ids(text(zeros_for_none=True)[0]("ink", " <lora:x:1>").unconditional) == [0] * LENGTH


def test_no_prompt_is_the_default_one(text):
    prompts, _ = text()
    assert ids(prompts("").given) == ids(prompts("ink").given)


def test_what_was_asked_is_remembered_and_is_not_the_engines_memory(text):
    prompts, engine = text()
    first = prompts("ink")
    prompts("rain")
    asked = len(engine.asked)
    assert ids(prompts("ink").given) == ids(first.given) and len(engine.asked) == asked
    assert ids(first.given)[1] == WORDS["ink"]
    for words in permutations(WORDS, 2):
        prompts(" ".join(words))
    asked = len(engine.asked)
    assert ids(prompts("ink").given) == ids(first.given) and len(engine.asked) > asked, "and memory is bounded"


def test_time_ids_are_told_where_the_network_takes_them(text):
    prompts, _ = text(time_ids=(64.0, 96.0, 0.0, 0.0, 64.0, 96.0))
    found = prompts("ink")
    assert found.given["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]]
    assert "time_ids" not in text()[0]("ink").given


def test_without_guidance_to_the_contrary_nothing_is_the_empty_prompt_or_zeros(text):
    assert ids(text()[0]("ink").unconditional) == [START, END, PAD, PAD, PAD, PAD]
    prompts, _ = text(zeros_for_none=True, time_ids=(64.0, 96.0, 0.0, 0.0, 64.0, 96.0))
    found = prompts("ink").unconditional
    assert ids(found) == [0] * LENGTH
    assert found["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]]


@pytest.mark.parametrize("zeros_for_none", [True, False])
def test_a_negative_prompt_takes_the_place_of_nothing(text, zeros_for_none):
    prompts, _ = text(zeros_for_none=zeros_for_none)
    found = prompts("ink", "old rain")
    assert ids(found.given)[1] == WORDS["ink"]
    assert ids(found.unconditional) == [START, WORDS["old"], WORDS["rain"], END, PAD, PAD]


def test_a_negative_style_is_a_style():
    prompts = StylePrompts({"a": Style(vector=(1.0, 0.0)), "b": Style(vector=(0.0, 1.0))}, "a", "cpu")
    assert prompts("a", "b").unconditional["style"].tolist() == [[0, 1]]
    with pytest.raises(StyleError, match="no style called"):
        prompts("a", "c")


def test_live_loras_are_told_and_the_encoder_runs_again_for_those_it_takes(text):
    prompts, engine = text((LiveLora(name="ink", default=0.5, text=True), LiveLora(name="rain", default=1.0)))
    first = prompts("old")
    assert first.given["lora_scale"].tolist() == first.unconditional["lora_scale"].tolist() == [[0.5, 1.0]]
    asked = len(engine.asked)
    again = prompts("old", loras={"rain": 2.0})
    assert again.given["lora_scale"].tolist() == [[0.5, 2.0]]
    assert len(engine.asked) == asked, "rain leaves the text alone"
    assert prompts("old", loras={"ink": 0.25}).given["lora_scale"].tolist() == [[0.25, 1.0]]
    assert len(engine.asked) == asked + 2 and engine.scales == [[0.25, 0.0]], "the prompt and the empty one"


def test_without_live_loras_nothing_is_told(text):
    prompts, engine = text()
    assert "lora_scale" not in prompts("ink").given and engine.scales is None
    only_unet, engine = text((LiveLora(name="rain", default=1.0),))
    assert only_unet("ink").given["lora_scale"].tolist() == [[1.0]] and engine.scales is None


def test_styles_are_blended_and_nothing_is_their_zero():
    prompts = StylePrompts({"a": Style(vector=(1.0, 0.0)), "b": Style(vector=(0.0, 1.0))}, "a", "cpu")
    found = prompts("a:3, b")
    assert found.given["style"].tolist() == [[0.75, 0.25]] and found.unconditional["style"].tolist() == [[0, 0]]
    with pytest.raises(StyleError, match="no style called"):
        prompts("c")


def test_it_closes_its_engine(text):
    prompts, engine = text()
    prompts.close()
    assert engine.closed


def test_an_encoder_that_is_asked_nothing_is_not_opened(text):
    opened = []

    def opening():
        opened.append(text())
        return opened[-1][0]

    prompts = WhenAsked(opening)
    prompts.close()
    assert not opened
    assert ids(prompts("old ink").given) == ids(prompts("old ink", "").given) and len(opened) == 1, "once"
    prompts.close()
    assert opened[0][1].closed
