"""Prompts as input tensors of the networks."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from warpfuse.engine.bundle_parts import LORA_INPUT, LiveLora, Style, TextInput, TextPrompt
from warpfuse.engine.contract import Engine
from warpfuse.engine.device import settle
from warpfuse.engine.errors import BundleError
from warpfuse.stages.diffusion.image_tokens import ImageTokens
from warpfuse.stages.diffusion.loras import lora_scales, tagged_scales
from warpfuse.stages.diffusion.palette import Palette, Table, mean_palette, palette_of
from warpfuse.stages.diffusion.prompt_chunks import Chunk, ChunkLayout
from warpfuse.stages.diffusion.prompt_grammar import PromptPart, parse
from warpfuse.stages.diffusion.style_images import StyleImageSettings, check_images
from warpfuse.stages.diffusion.styles import style_vector, style_weights
from warpfuse.stages.interim import Interim, PromptShare

_NONE: Mapping[str, float] = MappingProxyType({})
_NO_IMAGES: Mapping[str, StyleImageSettings] = MappingProxyType({})
_NO_TABLES: Mapping[str, Table] = MappingProxyType({})
Scales = tuple[float, ...]

_REMEMBERED = 16  # prompts that are cached, so that switching among a few of them is free
_REMEMBERED_LINES = 100


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Conditioning of the UNet: tensors [1, ...] by input name.

    given          for the prompt
    unconditional  for the unconditional pass of guidance
    palette        palette of a prompt of printed styles; else None
    """

    given: Mapping[str, Tensor] = field(repr=False)
    unconditional: Mapping[str, Tensor] = field(repr=False)
    palette: Palette | None = field(default=None, repr=False)


class Prompts(Protocol):
    """Turns prompts into conditioning. Thread-safe. Recent results are cached."""

    def __call__(
        self,
        prompt: str,
        negative: str = "",
        loras: Mapping[str, float] = _NONE,
        images: Mapping[str, StyleImageSettings] = _NO_IMAGES,
    ) -> Conditioning:
        """The conditioning for a prompt and a negative prompt, with scales of live LoRAs and style images by name.

        Raises StyleError, LoraError or ImageError for an unknown name or a file without a picture.
        """

    def close(self) -> None:
        """Close the networks."""


class WhenAsked:
    """Prompts that are opened with the first request, so that no text encoder is loaded without need."""

    def __init__(self, open: Callable[[], Prompts]) -> None:
        self._open = open
        self._lock = threading.Lock()
        self._prompts: Prompts | None = None

    def __call__(
        self,
        prompt: str,
        negative: str = "",
        loras: Mapping[str, float] = _NONE,
        images: Mapping[str, StyleImageSettings] = _NO_IMAGES,
    ) -> Conditioning:
        """See `Prompts`."""
        with self._lock:
            if self._prompts is None:
                self._prompts = self._open()
        return self._prompts(prompt, negative, loras, images)

    def close(self) -> None:
        """Close the prompts, if they were opened."""
        if self._prompts is not None:
            self._prompts.close()


class StylePrompts:
    """Prompts of named styles and their blends. They give "style" [1, n].

    The unconditional style is that of the negative prompt, or the zero vector without one.

    tables  tables of the styles that have one (`palette.py`)
    """

    def __init__(
        self, styles: Mapping[str, Style], default: str, device: str, tables: Mapping[str, Table] = _NO_TABLES
    ) -> None:
        self._styles = styles
        self._tables = tables
        self._vectors: dict[str, Sequence[float]] = {name: style.vector for name, style in styles.items()}
        self._default = default
        self._device = device

    def __call__(
        self,
        prompt: str,
        negative: str = "",
        loras: Mapping[str, float] = _NONE,
        images: Mapping[str, StyleImageSettings] = _NO_IMAGES,
    ) -> Conditioning:
        """The weighted mean of the style vectors, and the palette."""
        lora_scales(loras, ())
        check_images(images, ())
        style = self._style(prompt)
        negated = self._style(negative) if negative else torch.zeros_like(style)
        palette = palette_of(self._styles, style_weights(prompt, self._styles, self._default), self._tables)
        return Conditioning({"style": style}, {"style": negated}, palette)

    def close(self) -> None:
        """Nothing is held."""

    def _style(self, prompt: str) -> Tensor:
        return torch.tensor([style_vector(prompt, self._vectors, self._default)], device=self._device)


class TextPrompts:
    """Prompts of text, by a text encoder.

    They give its outputs by name ("context" [1, l, d], "pooled"), and "time_ids" for networks that take them.

    A prompt (`prompt_grammar.py`) is divided into chunks of as many tokens as the encoder takes, one call each:

        context = z_empty + w (z - z_empty)      for every token, with weight w; z_empty is the empty prompt's token

    The contexts of the chunks are concatenated; other outputs are those of the first chunk. If the bundle takes more
    chunks than a prompt has, they are repeated, which changes nothing for attention. If the number is no multiple,
    empty prompts follow instead.

    The unconditional tensors are those of the negative prompt. Without one they are those of the empty prompt, or zeros
    if the bundle says so (but the same "time_ids"). Scales of live LoRAs are given to the UNet in both passes as
    "lora_scale" [1, n], and to the encoder if it takes them. Style images: see `image_tokens.py`. Owns the engine and
    the networks of the images, and closes them.

    about       text encoder of the bundle
    tokenizers  file of the tokenizer, by input of the encoder
    loras       live LoRAs of the bundle
    say         is called once for every part of a prompt that is ignored or may have been meant differently
    images      makes the tokens of style images; None: the bundle takes none
    """

    def __init__(
        self,
        engine: Engine,
        about: TextPrompt,
        tokenizers: Mapping[str, Path],
        loras: Sequence[LiveLora] = (),
        say: Callable[[str], None] = lambda line: None,
        images: ImageTokens | None = None,
    ) -> None:
        self._engine = engine
        self._images = images
        self._about = about
        self._inputs: Mapping[str, TextInput] = {str(name): one for name, one in about.inputs.items()}
        self._layout = ChunkLayout(self._inputs, tokenizers, about.chunks)
        self._embeddings = tuple(dict.fromkeys(name for one in self._inputs.values() for name in one.embeddings))
        self._loras = loras
        self._takes_loras = any(lora.text for lora in loras)
        self._say = say
        self._said: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._zeros: Mapping[str, Tensor] | None = None
        self._encoded = lru_cache(_REMEMBERED)(self._encode)
        self._outputs = lru_cache(_REMEMBERED)(self._run)

    def __call__(
        self,
        prompt: str,
        negative: str = "",
        loras: Mapping[str, float] = _NONE,
        images: Mapping[str, StyleImageSettings] = _NO_IMAGES,
    ) -> Conditioning:
        """The conditioning. The encoder runs unless the prompts with these LoRA scales are cached."""
        if self._images is None:
            check_images(images, ())
        lora_scales(loras, self._loras)
        wanted = parse(prompt or self._about.default_prompt, self._embeddings)
        unwanted = parse(negative, self._embeddings)
        tagged, notes = tagged_scales(wanted.loras, loras, self._loras)
        scales = lora_scales({**loras, **tagged}, self._loras)
        told = {LORA_INPUT: torch.tensor([scales], device=self._engine.device)} if scales else {}
        # A LoRA without weights for the encoder must not make it run again.
        of_text = tuple(s if one.text else 0.0 for s, one in zip(scales, self._loras, strict=True))
        nothing: Sequence[str] = ()
        with self._lock:
            given, cut = self._encoded(wanted.parts, of_text)
            if self._about.zeros_for_none and unwanted.parts == (PromptPart(),):
                unconditional, cut_unwanted = self._nothing(given), nothing
            else:
                unconditional, cut_unwanted = self._encoded(unwanted.parts, of_text)
        self._tell("prompt", [*wanted.notes, *notes, *cut])
        self._tell("negative", [*unwanted.notes, *map(_of_the_prompt, unwanted.loras), *cut_unwanted])
        shown, not_shown = ({}, {}) if self._images is None else self._images(images)
        return Conditioning({**given, **told, **shown}, {**unconditional, **told, **not_shown})

    def close(self) -> None:
        """Close the engine and the networks of the images."""
        self._engine.close()
        if self._images is not None:
            self._images.close()

    def _tell(self, kind: str, notes: Sequence[str]) -> None:
        for line in (f"{kind}: {note}" for note in notes):
            with self._lock:
                known = line in self._said
                self._said[line] = None
                if len(self._said) > _REMEMBERED_LINES:
                    self._said.popitem(last=False)
            if not known:
                self._say(line)

    def _nothing(self, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Zeros in the shapes of `given`, which are the same for every prompt."""
        if self._zeros is None:
            self._zeros = {name: x if name == "time_ids" else torch.zeros_like(x) for name, x in given.items()}
            settle(self._engine.device)
        return self._zeros

    def _encode(self, parts: tuple[PromptPart, ...], scales: Scales) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """The outputs for a prompt, and a line for everything that is left out of it."""
        laid_out = [self._layout(part) for part in parts]
        found = [self._of_chunks(chunks, scales) for chunks, _ in laid_out]
        encoded = found[0] if len(found) == 1 else _mean(found, [part.weight for part in parts])
        if self._about.time_ids is not None:
            device = next(iter(encoded.values())).device
            encoded["time_ids"] = torch.tensor([self._about.time_ids], device=device)
        settle(self._engine.device)  # readers use other CUDA streams
        return encoded, tuple(note for _, notes in laid_out for note in notes)

    def _of_chunks(self, chunks: Sequence[Chunk], scales: Scales) -> dict[str, Tensor]:
        """The outputs for 1 to `about.chunks` chunks, padded to `about.chunks`."""
        contexts, room = [self._weighted(chunk, scales) for chunk in chunks], self._about.chunks
        if room % len(contexts) == 0:
            contexts *= room // len(contexts)
        else:
            contexts += [self._of({}, scales)["context"]] * (room - len(contexts))
        return {**self._of(chunks[0], scales), "context": torch.cat(contexts, dim=1)}

    def _weighted(self, chunk: Chunk, scales: Scales) -> Tensor:
        """The weighted context of a chunk, [1, l, d]."""
        z = self._of(chunk, scales)["context"]
        if all(token.weight == 1 for tokens in chunk.values() for token in tokens):
            return z
        w, z_empty = self._weights(chunk, z.shape[-1]).to(z.device), self._of({}, scales)["context"]
        return torch.where(w == 1, z, (z - z_empty) * w + z_empty)

    def _weights(self, chunk: Chunk, width: int) -> Tensor:
        """Weights of the tokens, [l, d], or [l, 1] if they are the same for all d. Start, end and padding have 1."""
        columns, widths = [], []
        for name, one in self._inputs.items():
            inner = [token.weight for token in chunk[name]]
            columns.append(torch.tensor([1.0, *inner, *[1.0] * (one.length - 1 - len(inner))])[:, None])
            widths.append(one.width or 0)
        if not all(widths):  # one encoder, or two with the same vocabulary
            return columns[0]
        if sum(widths) != width:
            raise BundleError(
                f"text.inputs: widths of {' + '.join(map(str, widths))}, but the text network gives {width} numbers a"
                " token. Export the bundle again"
            )
        return torch.cat([column.expand(-1, n) for column, n in zip(columns, widths, strict=True)], dim=1)

    def _of(self, chunk: Chunk, scales: Scales) -> Mapping[str, Tensor]:
        """The unweighted outputs for a chunk. An empty chunk is the empty prompt."""
        numbers = tuple(tuple(token.number for token in chunk.get(name, ())) for name in self._inputs)
        return self._outputs(numbers, scales)

    def _run(self, numbers: tuple[tuple[int, ...], ...], scales: Scales) -> Mapping[str, Tensor]:
        feed = {
            name: self._framed(one, inner) for (name, one), inner in zip(self._inputs.items(), numbers, strict=True)
        }
        if self._takes_loras:
            feed[LORA_INPUT] = torch.tensor([scales], device=self._engine.device)
        return {name: tensor.clone() for name, tensor in self._engine(feed).items()}  # the engine's own is borrowed

    def _framed(self, one: TextInput, numbers: Sequence[int]) -> Tensor:
        """[1, length] int64: start, the tokens, end, padding."""
        row = [one.start, *numbers, one.end]
        return torch.tensor([row + [one.pad] * (one.length - len(row))], device=self._engine.device)


def on_the_way(prompts: Prompts, interim: Interim | None) -> Prompts:
    """Prompts that give the blend of a crossfade, whatever the prompt; without a crossfade `prompts` itself."""
    return _Shares(prompts, interim.prompts) if interim is not None and interim.prompts else prompts


class _Shares:
    """Gives the weighted mean of the conditioning of several prompts."""

    def __init__(self, prompts: Prompts, shares: Sequence[PromptShare]) -> None:
        self._prompts = prompts
        self._shares = shares

    def __call__(
        self,
        prompt: str,
        negative: str = "",
        loras: Mapping[str, float] = _NONE,
        images: Mapping[str, StyleImageSettings] = _NO_IMAGES,
    ) -> Conditioning:
        """The mean, with these images. The other arguments are ignored."""
        found = [self._prompts(one.prompt, one.negative, dict(one.loras), images) for one in self._shares]
        shares = [one.share for one in self._shares]
        palettes = [one.palette for one in found if one.palette is not None]
        return Conditioning(
            _mean([one.given for one in found], shares),
            _mean([one.unconditional for one in found], shares),
            mean_palette(palettes, shares) if palettes else None,
        )

    def close(self) -> None:
        """Nothing: the prompts belong to another."""


def _mean(found: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of the outputs, by name."""
    shares = torch.tensor(weights) / sum(weights)
    return {
        name: torch.stack([one[name] * share for one, share in zip(found, shares.tolist(), strict=True)]).sum(0)
        for name in found[0]
    }


def _of_the_prompt(tag: tuple[str, float]) -> str:
    return f"{f'<lora:{tag[0]}:{tag[1]:g}>'!r} is left out: LoRAs are set by the prompt"
