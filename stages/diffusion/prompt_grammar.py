r"""The grammar of text prompts, as they circulate. Its weights are ComfyUI's.

    prompt     part AND part ...           the weighted mean of what its parts come to; a part may end in ":" NUMBER
    part       section BREAK section ...   every section begins a new chunk of the text encoder
    section    text, groups, embeddings
    group      "(" section ")"             1.1 times the weight around it
               "(" section ":" NUMBER ")"  this weight, whatever is around it
    embedding  "embedding:" NAME, or NAME  where the bundle has one of that name
    <lora:NAME:SCALE>                      anywhere; without SCALE 1
    \( \)                                  parentheses that are text

What does not fit the grammar is text, as ComfyUI takes it, and a note says so. No prompt is an error.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

LARGEST_WEIGHT = 10.0
"""Weights are held from -10 to 10: what is farther from the empty prompt overflows a network in half precision."""

_NESTED = 1.1
_DEEPEST = 100  # groups inside one another: the time it takes to read a prompt is held as well
_OPEN, _CLOSE = "\0", "\1"  # parentheses that are text, while the others are looked for

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
    """Words of one weight; or an embedding, by its name in the bundle."""

    text: str
    weight: float = 1.0
    embedding: bool = False


Section = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class PromptPart:
    """Sections, none of them empty, and the share of the part in the mean. The empty prompt has no sections."""

    sections: tuple[Section, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, read.

    parts  one or more
    loras  (name, scale), as they stand
    notes  what was taken otherwise than it may be meant, one line each
    """

    parts: tuple[PromptPart, ...]
    loras: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()


def parse(prompt: str, embeddings: Collection[str] = ()) -> Prompt:
    """Read a prompt. embeddings: names of those there are; case does not matter. Pure; raises nothing."""
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
    """The LoRAs, and the prompt without them and without what looks like them."""
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
    """(text, weight) of every stretch of one weight, in order."""
    for stretch in _stretches(text):
        if len(stretch) > 1 and stretch[0] == "(" and stretch[-1] == ")" and depth < _DEEPEST:
            yield from _weighted(*_group(stretch[1:-1], weight, notes), depth + 1, notes)
            continue
        if paren := re.search(r"[()]", stretch):
            notes.append(f"a {paren[0]!r} without its other half is taken as text; write '\\{paren[0]}' for it")
        yield stretch, weight


def _stretches(text: str) -> list[str]:
    """`text` cut in front of every parenthesis that opens at depth 0, and behind every one that returns to it.

    A closing one that was not opened lowers the depth for the rest of the text, as in ComfyUI.
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
    """What stands between parentheses, without its weight, and the weight."""
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
    """(stretches, share) of every side of AND that says something; one at least."""
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
    """Words and embeddings, in order; blanks alone are nothing."""
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
    """With the parentheses that are text."""
    return text.replace(_OPEN, "(").replace(_CLOSE, ")")
