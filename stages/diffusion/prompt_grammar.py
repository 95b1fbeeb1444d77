r"""The grammar of text prompts as in common use. Its weights are ComfyUI's.

    prompt     part AND part ...           weighted mean of the encoded parts; a part may end in ":" NUMBER, its weight
    part       section BREAK section ...   every section begins a new chunk of the text encoder
    section    text, groups, embeddings
    group      "(" section ")"             1.1 times the weight outside the group
               "(" section ":" NUMBER ")"  this weight, whatever is outside
    embedding  "embedding:" NAME, or NAME  if the bundle has an embedding of that name
    <lora:NAME:SCALE>                      anywhere; without SCALE 1
    \( \)                                  literal parentheses

Whatever does not fit the grammar is text, as in ComfyUI, and a note says so. No prompt is an error.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

LARGEST_WEIGHT = 10.0
"""Weights are limited to [-10, 10]: embeddings farther from the empty prompt's overflow networks in half precision."""

_NESTED = 1.1
_DEEPEST = 100  # depth of nested groups, which limits the time to parse a prompt
_OPEN, _CLOSE = "\0", "\1"  # stand for literal parentheses while parsing

_TAG = re.compile(r"<(\w+):([^<>]*)>")
_AND, _BREAK = re.compile(r"\bAND\b"), re.compile(r"\bBREAK\b")
_PART_WEIGHT = re.compile(r":\s*(\d+\.?\d*|\.\d+)\s*$")
_NAMED = r"(?<![\w-])embedding:(?P<named>[^\s,;\0\1]*[^\s,;.:!?\0\1])"
_SUFFIX = re.compile(r"\.(safetensors|pt|bin)$", re.IGNORECASE)

_FOREIGN = (
    (re.compile(r"\[[^\[\]]*\]"), "square brackets have no weight here, as in ComfyUI; write (words:0.9) for less"),
    (re.compile(r"\{[^{}]*\|[^{}]*\}"), "no words are drawn at random here; write the one that is meant"),
    (re.compile(r"(?<!\w)__[\w/*-]+__(?!\w)"), "there are no wildcards here; write the words that are meant"),
    (re.compile(r"[\w)](?:\+\+|--)(?![\w+-])"), "plus and minus have no weight here; write (words:1.2)"),
    (re.compile(r"\)\d*\.\d+"), "a weight stands inside its parentheses here; write (words:1.2)"),
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Words with the same weight, or the name of an embedding of the bundle."""

    text: str
    weight: float = 1.0
    embedding: bool = False


Section = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A part of a prompt: sections, none of them empty, and the weight of the part in the mean.

    The empty prompt has no sections.
    """

    sections: tuple[Section, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A parsed prompt.

    parts  at least one
    loras  (name, scale) of LoRA tags, as written
    notes  a line for everything that may have been meant differently
    """

    parts: tuple[PromptPart, ...]
    loras: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()


def parse(prompt: str, embeddings: Collection[str] = ()) -> Prompt:
    """Parse a prompt. embeddings: names of the bundle's embeddings, whatever the case. Pure, and never raises."""
    notes: list[str] = []
    loras, text = _tags(prompt, notes)
    text = text.replace("\\(", _OPEN).replace("\\)", _CLOSE)
    _note_foreign(text, notes)
    weighted = list(_weighted(text, 1.0, 0, notes))
    spelled = {name.casefold(): name for name in embeddings}
    shares = _parts(weighted)
    if len(shares) > 1:
        notes.append(f"AND is the mean of its {len(shares)} sides here; write 'and' for the word")
    parts = tuple(PromptPart(_sections(inside, spelled, notes), share) for inside, share in shares)
    return Prompt(parts, loras, tuple(dict.fromkeys(notes)))


def _tags(prompt: str, notes: list[str]) -> tuple[tuple[tuple[str, float], ...], str]:
    """The LoRA tags, and the prompt without any tags."""
    loras = []
    for tag, kind, inside in ((found[0], found[1], found[2]) for found in _TAG.finditer(prompt)):
        name, *numbers = (part.strip() for part in inside.split(":"))
        scale = _number(numbers[0]) if numbers else 1.0
        if kind.lower() != "lora" or not name or scale is None:
            notes.append(f"{tag!r} is left out: expected a LoRA, as in '<lora:NAME:0.8>'")
            continue
        if len(numbers) > 1:
            notes.append(f"{tag!r}: a LoRA has one scale here, {scale:g} is taken")
        loras.append((name, scale))
    return tuple(loras), _TAG.sub("", prompt)


def _note_foreign(text: str, notes: list[str]) -> None:
    for pattern, meaning in _FOREIGN:
        if found := pattern.search(text):
            notes.append(f"{_plain(found[0])!r} is taken as text: {meaning}")


def _weighted(text: str, weight: float, depth: int, notes: list[str]) -> Iterator[tuple[str, float]]:
    """(text, weight) of the stretches with the same weight, in order."""
    for stretch in _stretches(text):
        if len(stretch) > 1 and stretch[0] == "(" and stretch[-1] == ")" and depth < _DEEPEST:
            yield from _weighted(*_group(stretch[1:-1], weight, notes), depth + 1, notes)
            continue
        if paren := re.search(r"[()]", stretch):
            notes.append(f"a {paren[0]!r} without its other half is taken as text; write '\\{paren[0]}' for it")
        yield stretch, weight


def _stretches(text: str) -> list[str]:
    """`text` divided before every parenthesis that opens at depth 0, and after every one that closes to depth 0.

    An unmatched closing parenthesis lowers the depth for the rest of the text, as in ComfyUI.
    """
    cuts, depth = [0], 0
    for paren in re.finditer(r"[()]", text):
        if paren[0] == "(":
            if depth == 0:
                cuts.append(paren.start())
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                cuts.append(paren.end())
    return [text[start:end] for start, end in pairwise([*cuts, len(text)]) if start < end]


def _group(text: str, around: float, notes: list[str]) -> tuple[str, float]:
    """Text and weight of a group. text: what is between its parentheses; around: the weight outside."""
    before, colon, behind = text.rpartition(":")
    number = _number(behind) if colon and before else None
    weight = around * _NESTED if number is None else number
    if abs(weight) > LARGEST_WEIGHT:
        held = math.copysign(LARGEST_WEIGHT, weight)
        notes.append(f"a weight of {weight:g} is held at {held:g}")
        weight = held
    return (text if number is None else before), weight


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _parts(weighted: Sequence[tuple[str, float]]) -> list[tuple[list[tuple[str, float]], float]]:
    """(stretches, weight) of every side of AND that is not blank; at least one."""
    sides: list[list[tuple[str, float]]] = [[]]
    for text, weight in weighted:
        for number, inside in enumerate(_AND.split(text)):
            if number:
                sides.append([])
            sides[-1].append((inside, weight))
    sides = [side for side in sides if any(text.strip() for text, _ in side)] or [[]]
    return [(sides[0], 1.0)] if len(sides) == 1 else [_share(side) for side in sides]


def _share(side: list[tuple[str, float]]) -> tuple[list[tuple[str, float]], float]:
    text, weight = side[-1]
    found = _PART_WEIGHT.search(text)
    if found is None or not 0 < float(found[1]) < math.inf:
        return side, 1.0
    return [*side[:-1], (text[: found.start()], weight)], float(found[1])


def _sections(weighted: Sequence[tuple[str, float]], spelled: dict[str, str], notes: list[str]) -> tuple[Section, ...]:
    sections: list[list[Piece]] = [[]]
    for text, weight in weighted:
        for number, inside in enumerate(_BREAK.split(text)):
            if number:
                sections.append([])
            sections[-1].extend(_pieces(inside, weight, spelled, notes))
    return tuple(tuple(section) for section in sections if section)


def _pieces(text: str, weight: float, spelled: dict[str, str], notes: list[str]) -> Iterator[Piece]:
    """The words and embeddings of a text, in order. Blank text gives none."""
    bare = "|".join(re.escape(name) for name in sorted(spelled.values(), key=len, reverse=True))
    pattern = rf"{_NAMED}|(?<![\w-])(?P<bare>{bare})(?![\w-])" if bare else _NAMED
    end = 0
    for found in re.finditer(pattern, text, re.IGNORECASE):
        yield from _words(text[end : found.start()], weight)
        end = found.end()
        asked = found["named"] or found["bare"]
        name = spelled.get(asked.casefold()) or spelled.get(_SUFFIX.sub("", asked).casefold())
        if name is None:
            notes.append(_no_embedding(asked, spelled))
        else:
            yield Piece(name, weight, embedding=True)
    yield from _words(text[end:], weight)


def _words(text: str, weight: float) -> Iterator[Piece]:
    if text.strip():
        yield Piece(_plain(text), weight)


def _no_embedding(asked: str, spelled: dict[str, str]) -> str:
    line = f"'embedding:{asked}' is left out: this bundle has no embedding"
    if not spelled:
        return f"{line}. Export it again with --embedding FILE"
    nearest = difflib.get_close_matches(asked.casefold(), spelled, n=1, cutoff=0.5)
    hint = f"; did you mean {spelled[nearest[0]]!r}?" if nearest else "."
    return f"{line} of that name{hint} It has: {', '.join(spelled.values())}"


def _plain(text: str) -> str:
    """`text` with its literal parentheses put back."""
    return text.replace(_OPEN, "(").replace(_CLOSE, ")")
