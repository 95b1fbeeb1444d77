"""Embeddings of textual inversion (Gal et al. 2022): vectors used as words, added to a text encoder's vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..onnx_writing import ExportError
from .checkpoint import Checkpoint
from .weights import Tensors, read_tensors

MOST_VECTORS = 75  # tokens in a chunk of a prompt
_NAME = re.compile(r"[^\s,;:()\[\]\\|]{1,100}")
_BUNDLED = re.compile(r"^bundle_emb\.(?P<name>.+?)\.(?P<key>clip_l|clip_g|emb_params|string_to_param\..*)$")
# Key of the vectors in a file -> number of their text encoder; None: the only one.
_ENCODERS = {"clip_l": 0, "clip_g": 1, "text_encoders_0": 0, "text_encoders_1": 1, "emb_params": None}
_MADE_FOR = {768: "SD 1.5, or half of SDXL's", 1024: "SD 2", 1280: "half of SDXL's", 4096: "a T5"}


@dataclass(frozen=True, slots=True)
class Embedding:
    """An embedding file, and its name in prompts; None: the name in the file."""

    path: Path
    token: str | None = None


Vectors = dict[str, dict[int | None, Tensor]]
"""Vectors [n, width] by name and number of the text encoder."""


def parse_embedding(text: str) -> Embedding:
    """Parse FILE or FILE:TOKEN. Raises ExportError: no such file, or a token that is no single word."""
    path, token = Path(text).expanduser(), None
    if not path.is_file() and ":" in text:
        before, _, token = text.rpartition(":")
        path = Path(before).expanduser()
    if not path.is_file():
        raise ExportError(f"--embedding {text}: {path} is no file. Expected FILE.safetensors or FILE.safetensors:TOKEN")
    if token is not None:
        _check_name(token, text)
    return Embedding(path, token)


def add_embeddings(
    checkpoint: Checkpoint, embeddings: Sequence[Embedding], say: Callable[[str], None] = lambda line: None
) -> list[dict[str, tuple[int, ...]]]:
    """Add vectors to the vocabularies of the text encoders, in place. Returns their tokens by name, for each encoder.

    say  is called with a line for every embedding

    Raises ExportError: pickled or damaged, of another width, for other text encoders, or a repeated name. Then nothing
    is changed.
    """
    found: dict[str, list[Tensor]] = {}
    for embedding in embeddings:
        for name, of_encoders in _read(embedding, say).items():
            _check_name(name, str(embedding.path))
            if name.casefold() in (known.casefold() for known in found):
                raise ExportError(f"--embedding {embedding.path}: two are called {name!r}. Give it another: FILE:TOKEN")
            found[name] = _for_each(checkpoint, of_encoders, embedding.path)
            say(f"{embedding.path.name}: a prompt calls it {name}, {len(found[name][0])} vectors")
    tokens: list[dict[str, tuple[int, ...]]] = []
    for number, encoder in enumerate(checkpoint.text):
        tokens.append({})
        for name, vectors in found.items():
            tokens[number][name] = _append(encoder, vectors[number])
        if found:
            _find_the_end(encoder, checkpoint.tokenizers[number].end)
    return tokens


def _read(embedding: Embedding, say: Callable[[str], None]) -> Vectors:
    """The vectors in a file, by the names in it, or by `embedding.token`. Raises ExportError."""
    path = embedding.path
    if path.suffix != ".safetensors":
        raise ExportError(
            f"--embedding {path}: expected a .safetensors file; pickled ones (.pt, .bin) are refused, they can run code"
        )
    tensors = read_tensors(path)
    found: Vectors = {}
    for key, match in ((key, _BUNDLED.match(key)) for key in tensors):
        if match:
            found.setdefault(match["name"], {})[_ENCODERS.get(match["key"])] = tensors[key]
    if found:
        odd = [key for key in tensors if key.startswith("bundle_emb.") and not _BUNDLED.match(key)]
    else:
        found, odd = _unbundled(tensors, path)
    if odd:
        say(f"{path.name}: left out {', '.join(odd[:3])}{'' if len(odd) < 4 else ' and more'}: of no text encoder here")
    if embedding.token is not None:
        if len(found) > 1:
            raise ExportError(
                f"--embedding {path}:{embedding.token}: the file has {', '.join(found)}. Leave out the token"
            )
        found = {embedding.token: next(iter(found.values()))}
    return found


def _unbundled(tensors: Tensors, path: Path) -> tuple[Vectors, list[str]]:
    """The vectors in a file for one embedding, or of diffusers, and the keys of other tensors."""
    of_encoders: dict[int | None, Tensor] = {
        _ENCODERS.get(key): tensor
        for key, tensor in tensors.items()
        if key in _ENCODERS or key.startswith("string_to_param.")
    }
    if of_encoders:
        return {path.stem: of_encoders}, [
            key for key in tensors if key not in _ENCODERS and not key.startswith("string_to_param.")
        ]
    odd = [key for key, tensor in tensors.items() if not 1 <= tensor.dim() <= 2 or key.endswith((".weight", ".alpha"))]
    if odd:
        raise ExportError(f"--embedding {path.name} is no embedding: {odd[0]} is {list(tensors[odd[0]].shape)}")
    return {key: {None: tensor} for key, tensor in tensors.items()}, []  # diffusers: the key is the token


def _for_each(checkpoint: Checkpoint, of_encoders: dict[int | None, Tensor], path: Path) -> list[Tensor]:
    """The vectors for each text encoder, [n, width], float32. Raises ExportError."""
    encoders, family = range(len(checkpoint.text)), checkpoint.family.name
    wanted = [of_encoders.get(number, of_encoders.get(None)) for number in encoders]
    if len(checkpoint.text) > 1 and None in of_encoders:
        raise ExportError(f"--embedding {path.name}: it is of one text encoder; {family} needs clip_l and clip_g")
    if any(one is None for one in wanted) or any(
        number is not None and number not in encoders for number in of_encoders
    ):
        has = " and ".join(key for key, number in _ENCODERS.items() if number in of_encoders and key.startswith("clip"))
        raise ExportError(f"--embedding {path.name} has {has}; {family} has {len(checkpoint.text)} text encoders")
    vectors = []
    for number, tensor in enumerate(one for one in wanted if one is not None):
        shaped = tensor.float().reshape(-1, tensor.shape[-1])
        width = _words(checkpoint.text[number]).embedding_dim
        if shaped.shape[1] != width:
            made = f", as of {_MADE_FOR[shaped.shape[1]]}" if shaped.shape[1] in _MADE_FOR else ""
            raise ExportError(
                f"--embedding {path.name}: its vectors have {shaped.shape[1]} numbers{made}; {family}'s have {width}"
            )
        if not 1 <= len(shaped) <= MOST_VECTORS or not bool(torch.isfinite(shaped).all()):
            raise ExportError(
                f"--embedding {path.name}: expected 1 to {MOST_VECTORS} finite vectors, got {len(shaped)}"
            )
        vectors.append(shaped)
    if len({len(one) for one in vectors}) > 1:
        raise ExportError(f"--embedding {path.name}: clip_l and clip_g differ in how many vectors they have")
    return vectors


def _append(encoder: nn.Module, vectors: Tensor) -> tuple[int, ...]:
    """Append vectors to the vocabulary of an encoder. Returns their tokens."""
    words = _words(encoder)
    first = words.num_embeddings
    words.weight = nn.Parameter(torch.cat([words.weight.detach(), vectors]), requires_grad=False)
    words.num_embeddings = first + len(vectors)
    config: Any = encoder.config
    config.vocab_size = words.num_embeddings
    return tuple(range(first, words.num_embeddings))


def _find_the_end(encoder: nn.Module, end: int) -> None:
    """Make an encoder pool at the end token.

    Published configurations have an eos_token_id of 2, which makes encoders pool at the highest token. That is no
    longer the end token.
    """
    for module in encoder.modules():
        holders: tuple[Any, Any] = (module, getattr(module, "config", None))
        for holder in holders:
            if getattr(holder, "eos_token_id", None) == 2:
                holder.eos_token_id = end


def _words(encoder: nn.Module) -> nn.Embedding:
    found: Any = encoder
    words: nn.Embedding = found.get_input_embeddings()
    return words


def _check_name(name: str, where: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ExportError(
            f"--embedding {where}: no prompt can name {name!r}: expected a word without spaces, brackets, commas or "
            "colons. Give it one: FILE.safetensors:TOKEN"
        )
