"""Dividing a prompt into chunks of as many tokens as a text encoder takes, by ComfyUI's rules."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import shorten
from typing import Any

from warpfuse.engine.bundle_parts import MOST_CHUNKS, TextInput
from warpfuse.stages.diffusion.prompt_grammar import PromptPart, Section

_KEPT_TOGETHER = 8  # a word of fewer tokens is not divided between chunks


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its number in the vocabulary, its weight, and its word."""

    number: int
    weight: float
    word: str


Word = Sequence[Token]
Chunk = Mapping[str, Sequence[Token]]
"""Tokens between start and end token, by input of the text network."""


def lay_out(sections: Iterable[Iterable[Word]], room: int) -> list[list[Token]]:
    """Chunks of at most `room` tokens, in order; at least one chunk.

    Every section begins a new chunk. A word of fewer than 8 tokens that does not fit moves to the next chunk undivided.
    """
    chunks: list[list[Token]] = []
    for section in sections:
        chunks.append([])
        for word in section:
            rest = list(word)
            if chunks[-1] and len(rest) < _KEPT_TOGETHER and len(chunks[-1]) + len(rest) > room:
                chunks.append([])
            while rest:
                if len(chunks[-1]) == room:
                    chunks.append([])
                space = room - len(chunks[-1])
                chunks[-1] += rest[:space]
                rest = rest[space:]
    return chunks or [[]]


class ChunkLayout:
    """Divides parts of prompts into chunks, for each input of a text network by its own tokenizer.

    inputs      inputs of the text network, by name
    tokenizers  file of the tokenizer, by input
    most        largest number of chunks of a prompt
    """

    def __init__(self, inputs: Mapping[str, TextInput], tokenizers: Mapping[str, Path], most: int) -> None:
        from tokenizers import Tokenizer

        self._inputs = inputs
        self._most = most
        self._tokenizers: dict[str, Any] = {}
        for name, path in tokenizers.items():
            self._tokenizers[name] = Tokenizer.from_file(str(path))
            self._tokenizers[name].no_padding()
            self._tokenizers[name].no_truncation()

    def __call__(self, part: PromptPart) -> tuple[list[Chunk], list[str]]:
        """1 to `most` chunks, and a line for everything that is left out."""
        found, notes = self._lay_out(part.sections), []
        if len(part.sections) > 1 and any(len(chunks) > self._most for chunks in found.values()):
            found = self._lay_out([tuple(piece for section in part.sections for piece in section)])
            notes.append(
                f"BREAK is left out, its words stay: it begins another chunk, and this bundle takes {self._most}."
                f" {_export_again(len(part.sections))}"
            )
        longest = max(found.values(), key=len)
        if left := [token.word for chunk in longest[self._most :] for token in chunk]:
            tokens = sum(len(chunk) for chunk in longest)
            words = shorten(" ".join(word for word, _ in groupby(left)), 60, placeholder=" ...")
            notes.append(
                f"{tokens} tokens, of which {tokens - len(left)} fit into this bundle: {words!r} is left out."
                f" {_export_again(len(longest))}"
            )
        count = min(len(longest), self._most)
        return [
            {name: tuple(chunks[i]) if i < len(chunks) else () for name, chunks in found.items()} for i in range(count)
        ], notes

    def _lay_out(self, sections: Sequence[Section]) -> dict[str, list[list[Token]]]:
        return {
            name: lay_out([self._words(name, section) for section in sections], one.length - 2)
            for name, one in self._inputs.items()
        }

    def _words(self, name: str, section: Section) -> Iterator[Word]:
        for piece in section:
            if piece.embedding:
                numbers = self._inputs[name].embeddings.get(piece.text, ())
                yield [Token(number, piece.weight, piece.text) for number in numbers]
                continue
            for word in piece.text.split():
                numbers = self._tokenizers[name].encode(word, add_special_tokens=False).ids
                yield [Token(number, piece.weight, word) for number in numbers]


def _export_again(chunks: int) -> str:
    return f"Export it again with --prompt-chunks {chunks}" if chunks <= MOST_CHUNKS else "Make it shorter"
