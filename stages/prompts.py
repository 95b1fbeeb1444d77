"""What a prompt is to a network: the tensors it takes beside the latent."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from warpfuse.engine.bundle_parts import LORA_INPUT, LiveLora, Style, TextPrompt
from warpfuse.engine.contract import Engine
from warpfuse.engine.streams import settle
from warpfuse.stages.loras import lora_scales
from warpfuse.stages.palette import Palette, palette_of
from warpfuse.stages.styles import style_vector, style_weights

_NONE: Mapping[str, float] = MappingProxyType({})
Scales = tuple[float, ...]

_REMEMBERED = 16  # prompts, so that going back and forth between a few costs nothing


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Name -> tensor [1, ...] the network takes, for the prompt and for none (guidance asks for the second).

    palette  of a prompt of styles: what their paint is printed in, and their lines
    """

    given: Mapping[str, Tensor] = field(repr=False)
    unconditional: Mapping[str, Tensor] = field(repr=False)
    palette: Palette | None = field(default=None, repr=False)


class Prompts(Protocol):
    """Turns prompts into conditioning. Thread-safe; what was asked lately is remembered."""

    def __call__(self, prompt: str, negative: str = "", loras: Mapping[str, float] = _NONE) -> Conditioning:
        """What pulls, and what is pulled away from, with live LoRAs at these scales, by name.

        Raises StyleError or LoraError for a name that is not known.
        """

    def close(self) -> None:
        """Give back what is held."""


class WhenAsked:
    """Prompts that are opened when the first one is asked for: where none is, no text encoder is loaded."""

    def __init__(self, open: Callable[[], Prompts]) -> None:
        self._open = open
        self._lock = threading.Lock()
        self._prompts: Prompts | None = None

    def __call__(self, prompt: str, negative: str = "", loras: Mapping[str, float] = _NONE) -> Conditioning:
        """As those that are opened."""
        with self._lock:
            if self._prompts is None:
                self._prompts = self._open()
        return self._prompts(prompt, negative, loras)

    def close(self) -> None:
        """Close what was opened."""
        if self._prompts is not None:
            self._prompts.close()


class StylePrompts:
    """Named styles and blends of them: "style" [1, n]. Unconditional is the negative one's, or the zero vector."""

    def __init__(self, styles: Mapping[str, Style], default: str, device: str) -> None:
        self._styles = styles
        self._vectors: dict[str, Sequence[float]] = {name: style.vector for name, style in styles.items()}
        self._default = default
        self._device = device

    def __call__(self, prompt: str, negative: str = "", loras: Mapping[str, float] = _NONE) -> Conditioning:
        """The weighted mean of the styles' vectors."""
        lora_scales(loras, ())
        style = self._style(prompt)
        negated = self._style(negative) if negative else torch.zeros_like(style)
        palette = palette_of(self._styles, style_weights(prompt, self._styles, self._default))
        return Conditioning({"style": style}, {"style": negated}, palette)

    def close(self) -> None:
        """Nothing is held."""

    def _style(self, prompt: str) -> Tensor:
        return torch.tensor([style_vector(prompt, self._vectors, self._default)], device=self._device)


class TextPrompts:
    """A text encoder: its outputs by name ("context" [1, l, d], "pooled"), and "time_ids" where the network takes them.

    Unconditional is the negative prompt; without one the empty prompt, or zeros where the bundle says so (but time_ids,
    which are the picture's). Live LoRAs are told to either as "lora_scale" [1, n], and to the encoder where it takes
    them. Owns the engine and closes it.

    tokenizers  input of the encoder -> file of its tokenizer
    loras       live ones of the bundle
    """

    def __init__(
        self, engine: Engine, about: TextPrompt, tokenizers: Mapping[str, Path], loras: Sequence[LiveLora] = ()
    ) -> None:
        from tokenizers import Tokenizer

        self._engine = engine
        self._about = about
        self._loras = loras
        self._takes_loras = any(lora.text for lora in loras)
        self._tokenizers: dict[str, Any] = {}
        for name, path in tokenizers.items():
            self._tokenizers[name] = Tokenizer.from_file(str(path))
            self._tokenizers[name].no_padding()
            self._tokenizers[name].no_truncation()
        self._lock = threading.Lock()
        self._zeros: Mapping[str, Tensor] | None = None
        self._known: OrderedDict[tuple[str, Scales], Mapping[str, Tensor]] = OrderedDict()

    def __call__(self, prompt: str, negative: str = "", loras: Mapping[str, float] = _NONE) -> Conditioning:
        """Run the encoder, unless the prompts are remembered as they are with these LoRAs."""
        scales = lora_scales(loras, self._loras)
        told = {LORA_INPUT: torch.tensor([scales], device=self._engine.device)} if scales else {}
        # one that leaves the encoder alone does not make it run again
        of_text = tuple(s if one.text else 0.0 for s, one in zip(scales, self._loras, strict=True))
        given = self._encoded(prompt or self._about.default_prompt, of_text)
        zeros = self._about.zeros_for_none and not negative
        unconditional = self._nothing(given) if zeros else self._encoded(negative, of_text)
        return Conditioning({**given, **told}, {**unconditional, **told})

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

    def _encoded(self, prompt: str, scales: Scales) -> Mapping[str, Tensor]:
        key = prompt, scales
        with self._lock:
            if key not in self._known:
                feed: dict[str, Tensor] = {name: self._tokens(name, prompt) for name in self._about.inputs}
                if self._takes_loras:
                    feed[LORA_INPUT] = torch.tensor([scales], device=self._engine.device)
                outputs = self._engine(feed)
                encoded = {name: tensor.clone() for name, tensor in outputs.items()}  # the engine's own is lent
                if self._about.time_ids is not None:
                    device = next(iter(encoded.values())).device
                    encoded["time_ids"] = torch.tensor([self._about.time_ids], device=device)
                settle(self._engine.device)  # whoever takes it from here works on another stream
                self._known[key] = encoded
            self._known.move_to_end(key)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            return self._known[key]

    def _tokens(self, name: str, prompt: str) -> Tensor:
        """[1, length] int64: start, the prompt cut to fit, end, padding."""
        one = self._about.inputs[name]  # type: ignore[index]
        ids = self._tokenizers[name].encode(prompt, add_special_tokens=False).ids[: one.length - 2]
        row = [one.start, *ids, one.end]
        return torch.tensor([row + [one.pad] * (one.length - len(row))], device=self._engine.device)
