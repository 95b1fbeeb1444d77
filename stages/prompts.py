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

    def __call__(self, prompt: str, negative: str = "") -> Conditioning:
        """What pulls, and what is pulled away from. Raises StyleError for a prompt that names nothing known."""

    def close(self) -> None:
        """Give back what is held."""


class StylePrompts:
    """Named styles and blends of them: "style" [1, n]. Unconditional is the negative one's, or the zero vector."""

    def __init__(self, styles: Mapping[str, Style], default: str, device: str) -> None:
        self._vectors: dict[str, Sequence[float]] = {name: style.vector for name, style in styles.items()}
        self._default = default
        self._device = device

    def __call__(self, prompt: str, negative: str = "") -> Conditioning:
        """The weighted mean of the styles' vectors."""
        style = self._style(prompt)
        return Conditioning({"style": style}, {"style": self._style(negative) if negative else torch.zeros_like(style)})

    def close(self) -> None:
        """Nothing is held."""

    def _style(self, prompt: str) -> Tensor:
        return torch.tensor([style_vector(prompt, self._vectors, self._default)], device=self._device)


class TextPrompts:
    """A text encoder: its outputs by name ("context" [1, l, d], "pooled"), and "time_ids" where the network takes them.

    Unconditional is the negative prompt; without one the empty prompt, or zeros where the bundle says so (but time_ids,
    which are the picture's). Owns the engine and closes it.

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
        self._zeros: Mapping[str, Tensor] | None = None
        self._known: OrderedDict[str, Mapping[str, Tensor]] = OrderedDict()

    def __call__(self, prompt: str, negative: str = "") -> Conditioning:
        """Run the encoder, unless the prompts are remembered."""
        given = self._encoded(prompt or self._about.default_prompt)
        if negative or not self._about.zeros_for_none:
            return Conditioning(given, self._encoded(negative))
        return Conditioning(given, self._nothing(given))

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _nothing(self, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Zeros in the shapes of `given`, which are the same for every prompt."""
        with self._lock:
            if self._zeros is None:
                self._zeros = {name: x if name == "time_ids" else torch.zeros_like(x) for name, x in given.items()}
                settle(self._engine.device)
            return self._zeros

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
