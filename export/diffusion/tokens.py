"""The tokenizers of a checkpoint as single files for the `tokenizers` library, with their special tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warpfuse.engine.errors import one_line

from ..onnx_writing import ExportError

LENGTH = 77
_WORD_END = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"
# Pieces within which byte pairs are merged, from CLIP's own tokenizer.
_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer.

    file             contents of its tokenizer.json
    start, end, pad  special tokens: a prompt is cut to length - 2 tokens, put between start and end, and padded
    length           number of tokens of a padded prompt
    """

    file: bytes
    start: int
    end: int
    pad: int
    length: int = LENGTH

    def __call__(self, prompt: str) -> list[int]:
        """The padded tokens of a prompt."""
        from tokenizers import Tokenizer as Library

        ids = Library.from_str(self.file.decode()).encode(prompt, add_special_tokens=False).ids[: self.length - 2]
        framed = [self.start, *ids, self.end]
        return framed + [self.pad] * (self.length - len(framed))


def read_tokenizer(folder: Path, pad: str | None = None) -> Tokenizer:
    """Read a tokenizer from a folder with tokenizer.json, or with vocab.json and merges.txt, which are converted.

    pad  padding token, instead of that in the folder

    Raises ExportError: no such files, or they cannot be read.
    """
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Library

    try:
        if (folder / "tokenizer.json").is_file():
            library = Library.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            library = _clip(folder)
        else:
            raise ExportError(f"{folder} has no tokenizer.json, and no vocab.json with merges.txt: no tokenizer")
        special = _special_tokens(folder) | ({} if pad is None else {"pad": pad})
    except ExportError:
        raise
    except Exception as error:  # the library raises plain Exception for a file it cannot parse
        raise ExportError(f"{folder} holds no readable tokenizer: {one_line(error, 200)}") from error
    ids = {}
    for use, token in special.items():
        number = library.token_to_id(token)
        if number is None:
            raise ExportError(f"{folder}: {use} token {token!r} is not in the vocabulary")
        ids[use] = number
    # The padding token is always a token of its own: with SDXL's second tokenizer "!" is never part of a word.
    library.add_special_tokens([AddedToken(token, special=True) for token in special.values()])
    library.no_truncation()
    library.no_padding()
    return Tokenizer(library.to_str().encode(), **ids)


def _clip(folder: Path) -> Any:
    """CLIP's tokenizer from vocabulary and merges: lower case, </w> at the end of words, byte pairs in `_PIECES`."""
    from tokenizers import Regex, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Library
    from tokenizers.models import BPE

    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [(a, b) for a, _, b in (line.partition(" ") for line in lines if line and not line.startswith("#version"))]
    library = Library(
        BPE(vocab=vocabulary, merges=merges, unk_token=_END, end_of_word_suffix=_WORD_END, fuse_unk=False)
    )
    library.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return library


def _special_tokens(folder: Path) -> dict[str, str]:
    """Start, end and padding token as text. CLIP pads with its end token; SDXL's second tokenizer names another."""
    found = {"start": _START, "end": _END, "pad": _END}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            described = json.loads((folder / file).read_text(encoding="utf-8"))
            for use, key in (("start", "bos_token"), ("end", "eos_token"), ("pad", "pad_token")):
                token = described.get(key)
                token = token.get("content") if isinstance(token, dict) else token
                if isinstance(token, str):
                    found[use] = token
    return found
