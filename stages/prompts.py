"""What a prompt is to a network: the tensors it takes beside the latent."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from warpfuse.engine.bundle_file import Style, TextPrompt
from warpfuse.engine.contract import Engine
from warpfuse.engine.streams import settle
from warpfuse.stages.styles import style_vector

_REMEMBERED = 16  # prompts, so that going back and forth between a few costs nothing


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Name -> tensor [1, ...] the network takes, for the prompt and for none (guidance asks for the second)."""

    given: Mapping[str, Tensor] = field(repr=False)
    unconditional: Mapping[str, Tensor] = field(repr=False)


class Prompts(Protocol):
    """Turns prompts into conditioning. Thread-safe; what was asked lately is remembered."""

    def __call__(self, prompt: str) -> Conditioning:
        """Raises StyleError for a prompt that names nothing known."""

    def close(self) -> None:
        """Give back what is held."""


class StylePrompts:
    """Named styles and blends of them: "style" [1, n]. Unconditional is the zero vector."""

    def __init__(self, styles: Mapping[str, Style], default: str, device: str) -> None:
        self._vectors: dict[str, Sequence[float]] = {name: style.vector for name, style in styles.items()}
        self._default = default
        self._device = device

    def __call__(self, prompt: str) -> Conditioning:
        """The weighted mean of the styles' vectors."""
        style = torch.tensor([style_vector(prompt, self._vectors, self._default)], device=self._device)
        return Conditioning({"style": style}, {"style": torch.zeros_like(style)})

    def close(self) -> None:
        """Nothing is held."""


class TextPrompts:
    """A text encoder: its outputs by name ("context" [1, l, d], "pooled"), and "time_ids" where the network takes them.

    Unconditional is the empty prompt. Owns the engine and closes it.

    tokenizers  input of the encoder -> file of its tokenizer
    """

    def __init__(self, engine: Engine, about: TextPrompt, tokenizers: Mapping[str, Path]) -> None:
        from tokenizers import Tokenizer

        self._engine = engine
        self._about = about
        self._tokenizers: dict[str, Any] = {}
        for name, path in tokenizers.items():
            self._tokenizers[name] = Tokenizer.from_file(str(path))
            self._tokenizers[name].no_padding()
            self._tokenizers[name].no_truncation()
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Mapping[str, Tensor]] = OrderedDict()

    def __call__(self, prompt: str) -> Conditioning:
        """Run the encoder, unless the prompt is remembered."""
        return Conditioning(self._encoded(prompt or self._about.default_prompt), self._encoded(""))

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _encoded(self, prompt: str) -> Mapping[str, Tensor]:
        with self._lock:
            if prompt not in self._known:
                outputs = self._engine({name: self._tokens(name, prompt) for name in self._about.inputs})
                encoded = {name: tensor.clone() for name, tensor in outputs.items()}  # the engine's own is lent
                if self._about.time_ids is not None:
                    device = next(iter(encoded.values())).device
                    encoded["time_ids"] = torch.tensor([self._about.time_ids], device=device)
                settle(self._engine.device)  # whoever takes it from here works on another stream
                self._known[prompt] = encoded
            self._known.move_to_end(prompt)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            return self._known[prompt]

    def _tokens(self, name: str, prompt: str) -> Tensor:
        """[1, length] int64: start, the prompt cut to fit, end, padding."""
        one = self._about.inputs[name]  # type: ignore[index]
        ids = self._tokenizers[name].encode(prompt, add_special_tokens=False).ids[: one.length - 2]
        row = [one.start, *ids, one.end]
        return torch.tensor([row + [one.pad] * (one.length - len(row))], device=self._engine.device)
