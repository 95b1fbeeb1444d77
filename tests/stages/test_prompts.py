"""Prompts: what the network is given for them, framed and cut as its text encoder was trained."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from warpfuse.engine.bundle_parts import LiveLora, Style, TextPrompt
from warpfuse.stages.errors import StyleError
from warpfuse.stages.prompts import StylePrompts, TextPrompts, WhenAsked

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

    def made(loras=(), **keys):
        engine = Echo()
        about = TextPrompt.model_validate({"inputs": {"tokens": one}, "default_prompt": "ink", **keys})
        return TextPrompts(engine, about, {"tokens": tmp_path / "tokenizer.json"}, loras), engine

    return made


def ids(context):
    return context["context"].flatten().tolist()


def test_a_prompt_is_framed_and_filled_up(text):
    prompts, _ = text()
    found = prompts("old ink")
    assert ids(found.given) == [START, WORDS["old"], WORDS["ink"], END, PAD, PAD]
    assert ids(found.unconditional) == [START, END, PAD, PAD, PAD, PAD]


def test_a_long_prompt_is_cut_before_the_end_token(text):
    prompts, _ = text()
    assert ids(prompts("an old ink drawing of rain").given) == [START, 0, 1, 2, 3, END]


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
    for number in range(30):
        prompts("ink " * number + "rain")
    assert len(prompts._known) <= 16, "and memory is bounded"


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
