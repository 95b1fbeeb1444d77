"""The grammar of prompts: ComfyUI's weights, and a note for whatever is not in the grammar."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.diffusion.prompt_grammar import LARGEST_WEIGHT, Piece, PromptPart, parse


def words(prompt):
    """(word, weight) of a prompt of one part and one section."""
    (part,) = prompt.parts
    return [(word, piece.weight) for section in part.sections for piece in section for word in piece.text.split()]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("ink", [("ink", 1.0)]),
        ("(ink)", [("ink", 1.1)]),
        ("((ink))", [("ink", 1.1 * 1.1)]),
        ("(ink:1.3)", [("ink", 1.3)]),
        ("(ink:-0.5)", [("ink", -0.5)]),
        ("an (old (ink:1.5) drawing) of", [("an", 1), ("old", 1.1), ("ink", 1.5), ("drawing", 1.1), ("of", 1)]),
        ("(old (ink) rain:0.5)", [("old", 0.5), ("ink", 0.5 * 1.1), ("rain", 0.5)]),
        ("(a (b:1.2))", [("a", 1.1), ("b", 1.2)]),
        ("(ink:rain)", [("ink:rain", 1.1)]),
        ("(:1.3)", [(":1.3", 1.1)]),
        ("(ink:nan)", [("ink:nan", 1.1)]),
        (r"\(ink\) (\(rain\):1.2)", [("(ink)", 1.0), ("(rain)", 1.2)]),
        ("[ink]", [("[ink]", 1.0)]),
        ("(ink", [("(ink", 1.0)]),
        ("ink) (rain)", [("ink)", 1.0), ("(rain)", 1.0)]),
        ("(ink))(rain)", [("ink", 1.1), (")(rain)", 1.0)]),
        ("((ink)", [("(ink", 1.1)]),
        ("()", []),
        ("", []),
        (" \n", []),
    ],
)
def test_weights_are_those_of_comfyui(text, wanted):
    """What its parser gives, but for blanks."""
    assert words(parse(text)) == wanted


def flat(tree, weight=1.0):
    """(word, weight) of a tree of words and (number or None, tree), by the rule of the documentation."""
    for item in tree:
        if isinstance(item, str):
            yield item, weight
        else:
            number, inside = item
            yield from flat(inside, weight * 1.1 if number is None else number)


def written(tree):
    """The prompt of such a tree."""
    parts = []
    for item in tree:
        if isinstance(item, str):
            parts.append(item.replace("(", "\\(").replace(")", "\\)"))
        else:
            number, inside = item
            parts.append(f"({written(inside)}{'' if number is None else f':{number!r}'})")
    return " ".join(parts)


WORD = st.text("abcé,()'", min_size=1, max_size=5)
NUMBER = st.none() | st.floats(-LARGEST_WEIGHT, LARGEST_WEIGHT)
TREE = st.recursive(
    st.lists(WORD, min_size=1, max_size=3),
    lambda inner: st.lists(WORD | st.tuples(NUMBER, inner), min_size=1, max_size=4),
    max_leaves=12,
)


@given(TREE)
def test_what_is_written_by_the_rules_is_read_by_them(tree):
    wanted = [(word, max(-LARGEST_WEIGHT, min(LARGEST_WEIGHT, weight))) for word, weight in flat(tree)]
    assert words(parse(written(tree))) == wanted


PIECES = [
    "(",
    ")",
    "ab",
    " ",
    ":",
    "1.3",
    "\\",
    "[",
    "]",
    "<lora:",
    ">",
    "embedding:",
    "BREAK",
    "AND",
    "{a|b}",
    "\0",
    "++",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=40))
def test_any_text_is_read(text):
    prompt = parse(text, ["ab", "other"])
    assert prompt.parts
    for part in prompt.parts:
        assert 0 < part.weight < math.inf and all(part.sections)
        assert all(abs(piece.weight) <= LARGEST_WEIGHT for section in part.sections for piece in section)
    assert not any("\n" in note for note in prompt.notes)


@given(st.text("ab() \\1.", max_size=40))
def test_words_are_never_lost(text):
    """Letters are still there, in their order, whatever the parentheses around them."""
    read = "".join(word for word, _ in words(parse(text)))
    assert [c for c in read if c in "ab"] == [c for c in text if c in "ab"]


def test_a_great_many_parentheses_are_read():
    for text in ("(" * 20_000 + "ink", "ink" + ")" * 20_000, "(" * 3000 + "ink" + ")" * 3000):
        assert "ink" in "".join(word for word, _ in words(parse(text)))


def test_break_begins_a_section_and_says_nothing_where_there_is_nothing():
    (part,) = parse("old (ink BREAK rain:1.2) BREAK").parts
    assert part.sections == ((Piece("old "), Piece("ink ", 1.2)), (Piece(" rain", 1.2),))
    assert parse("BREAK").parts == parse("").parts == (PromptPart(),)
    assert len(parse("old breakfast BREAKFAST").parts[0].sections) == 1


def test_and_parts_with_their_shares_and_a_note():
    prompt = parse("(old:1.2) ink :2 AND rain BREAK wind:0.5 AND")
    assert [part.weight for part in prompt.parts] == [2.0, 0.5]
    assert prompt.parts[0].sections == ((Piece("old", 1.2), Piece(" ink ")),)
    assert prompt.parts[1].sections == ((Piece(" rain "),), (Piece(" wind"),))
    assert prompt.notes == ("AND is the mean of its 2 sides here; write 'and' for the word",)
    assert parse("old and new, SAND, at 10:30").notes == () and len(parse("ink AND").parts) == 1
    assert parse("a:0 AND b").parts[0].weight == 1.0, "a part of no share is none"


def test_loras_are_taken_out_with_their_scales():
    prompt = parse("old <lora:Rain Drops:0.8> ink<lora:x><LoRA:y:-1>")
    assert prompt.loras == (("Rain Drops", 0.8), ("x", 1.0), ("y", -1.0))
    assert words(prompt) == [("old", 1), ("ink", 1)] and prompt.notes == ()


def test_embeddings_are_found_by_their_names():
    names = ["EasyNegative", "<cat>", "bad-hands-5"]
    pieces = parse("(embedding:easynegative.pt:1.2), bad-hands-5, a <cat>. bad-hands-50", names).parts[0].sections[0]
    assert [piece for piece in pieces if piece.embedding] == [
        Piece("EasyNegative", 1.2, embedding=True),
        Piece("bad-hands-5", 1.0, embedding=True),
        Piece("<cat>", 1.0, embedding=True),
    ]
    assert "bad-hands-50" in pieces[-1].text


@pytest.mark.parametrize(
    "text, says",
    [
        ("old (ink", r"'\(' without its other half is taken as text"),
        ("old ink)", r"'\)' without its other half is taken as text"),
        ("an [ink] drawing", r"'\[ink\]' is taken as text: square brackets have no weight here, as in ComfyUI"),
        ("[ink:rain:0.5]", "is taken as text"),
        ("{ink|rain}", r"'{ink\|rain}' is taken as text"),
        ("a __colour__ house", "'__colour__' is taken as text: there are no wildcards"),
        ("ink++ rain", "plus and minus have no weight here"),
        ("(ink)1.3", "a weight stands inside its parentheses"),
        ("(ink:30)", "a weight of 30 is held at 10"),
        ("<hypernet:x:1> ink", "'<hypernet:x:1>' is left out"),
        ("<lora:x:much> ink", "'<lora:x:much>' is left out: expected a LoRA"),
        ("<lora:x:0.8:0.3> ink", "a LoRA has one scale here, 0.8 is taken"),
        (
            "embedding:easynegativ, ink",
            "'embedding:easynegativ' is left out.*did you mean 'EasyNegative'.*It has: Easy",
        ),
    ],
)
def test_what_is_not_in_the_grammar_is_one_line(text, says):
    prompt = parse(text, ["EasyNegative"])
    assert len(prompt.notes) == 1 and re.search(says, prompt.notes[0]) and "\n" not in prompt.notes[0]


@pytest.mark.parametrize("text", ["ink, 1.5 (rain) old:new", "a house -- in rain", "e-mail", "snake_case__x"])
def test_control_ordinary_words_get_no_note(text):
    assert parse(text).notes == ()


def test_without_embeddings_the_remedy_is_told():
    assert parse("embedding:x, ink").notes == (
        "'embedding:x' is left out: this bundle has no embedding. Export it again with --embedding FILE",
    )
