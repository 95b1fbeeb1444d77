"""IP-Adapters in the file of the UNet: a picture as a prompt, with scales for each row as an input.

    out = A(q, K_text, V_text) + sum_a scale_a A(q, W_k^a z_a, W_v^a z_a)        in every layer of cross-attention

z_a are the image tokens of adapter a (Ye et al. 2023): the output of its projection for a picture that was encoded by a
CLIP vision encoder. Both do not depend on the frame, so here they are a network of their own, which runs when the
picture changes. At scale 0 an adapter adds zeros, and the result equals that of the UNet without it bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from warpfuse.engine.bundle_parts import IMAGE_LAYERS, IMAGE_SCALE, IMAGE_TOKENS, StyleImage

from .attention import heads_of

_CLIP_MEAN, _CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Position of a layer in the UNet -> its group, as in InstantStyle: for SDXL (True), and for the small families.
_GROUPS: Mapping[bool, Mapping[str, str]] = {
    True: {"up_blocks.0.attentions.1.": "style", "down_blocks.2.attentions.1.": "layout"},
    False: {"up_blocks.1.": "style", "down_blocks.2.": "layout", "mid_block.": "layout"},
}


class ImageEncoder(nn.Module):
    """rgb [1, 3, S, S] in [0, 1] -> for each adapter the tokens [1, T, d] of the picture, and those for no picture.

    encoder      a CLIPVisionModelWithProjection
    projections  projections of the adapters, as in diffusers: from the pooled vector, or from the last layer but one
    size, counts  S, and T of each adapter
    """

    def __init__(self, encoder: Any, projections: Sequence[Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.size = int(encoder.config.image_size)
        self.counts: list[int] = []
        self.projections = nn.ModuleList(projections)
        self.register_buffer("mean", torch.tensor(_CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_CLIP_DEVIATION).view(1, 3, 1, 1), persistent=False)
        with torch.no_grad():
            pooled, inner = self._seen(torch.zeros(1, 3, self.size, self.size))
            for number, projection in enumerate(projections):
                none = projection(torch.zeros_like(pooled) if takes_pooled(projection) else inner)
                self.register_buffer(f"none_{number}", none, persistent=False)
                self.counts.append(none.shape[1])

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """The two outputs of each adapter, one adapter after the other."""
        mean: Any = self.mean
        pooled, inner = self._seen((rgb - mean) / self.deviation)
        outputs: list[Tensor] = []
        for number, projection in enumerate(self.projections):
            tokens = projection(pooled if takes_pooled(projection) else inner)
            outputs += [tokens, getattr(self, f"none_{number}").clone()]
        return tuple(outputs)

    def _seen(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        told = self.encoder(normed, output_hidden_states=True)
        return told.image_embeds, told.hidden_states[-2]


def takes_pooled(projection: Any) -> bool:
    """The projection takes the pooled vector of the encoder; else it takes the states of all tokens."""
    from diffusers.models.embeddings import ImageProjection

    return isinstance(projection, ImageProjection)


@dataclass(frozen=True, slots=True)
class Images:
    """The opened style images for an export.

    about     their descriptions, for `bundle.json`
    encoders  the different networks that encode pictures
    keys      for each image and each layer of cross-attention in the UNet's order: weights of keys and values
    """

    about: tuple[StyleImage, ...] = ()
    encoders: tuple[ImageEncoder, ...] = ()
    keys: tuple[tuple[tuple[Tensor, Tensor], ...], ...] = ()

    def outputs(self, number: int) -> list[str]:
        """The names of the outputs of encoder `number`."""
        places = [place for place, image in enumerate(self.about) if image.network == number]
        return [name for place in places for name in (f"tokens_{place}", f"none_{place}")]

    @property
    def added(self) -> int:
        """Number of parameters that are added to the UNet's file."""
        return sum(weight.numel() for layers in self.keys for pair in layers for weight in pair)

    def typical(self, tokens: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Inputs of the UNet, with a different scale in every column and row.

        tokens  outputs of the encoders, by name
        """
        if not self.about:
            return {}
        joined = torch.cat([tokens[f"tokens_{place}"] for place in range(len(self.about))], 1)
        columns = len(IMAGE_LAYERS) * len(self.about)
        scale = torch.linspace(1.0, 0.3, rows * columns).reshape(rows, columns)
        return {IMAGE_TOKENS: joined.repeat(rows, 1, 1), IMAGE_SCALE: scale}


class ImagePrompts:
    """Image tokens and scales for the layers of a network in the current pass."""

    def __init__(self, tokens: Sequence[int]) -> None:
        """tokens: number of tokens of each image."""
        self._starts = [0, *accumulate(tokens)]

    def give(self, tokens: Tensor, scale: Tensor) -> None:
        """Begin a pass. tokens [rows, T, d], scale [rows, 3 n]."""
        self._tokens, self._scale = tokens, scale

    def of(self, number: int, own: Tensor) -> Tensor:
        """[rows, T, d]: the tokens of image `number`, in the dtype of a layer's `own`."""
        start, end = self._starts[number : number + 2]
        return self._tokens[:, start:end].to(own.dtype)

    def scale(self, number: int, group: int, own: Tensor) -> Tensor:
        """[rows, 1, 1]: the scale of image `number` in the layers of a group."""
        column = len(IMAGE_LAYERS) * number + group
        return self._scale[:, column].to(own.dtype).view(-1, 1, 1)


class ImageAttention(nn.Module):
    """The processor of a cross-attention layer that attends to the images as well.

    group  group of the layer, an index in `IMAGE_LAYERS`
    pairs  weights of keys and values, for each image
    """

    def __init__(self, prompts: ImagePrompts, group: int, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._prompts, self._group = prompts, group
        self.to_k_ip = nn.ModuleList(_linear(key) for key, _ in pairs)
        self.to_v_ip = nn.ModuleList(_linear(value) for _, value in pairs)

    def forward(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """hidden_states [rows, N, C], encoder_hidden_states [rows, l, d], the prompt -> [rows, N, C]."""
        h, context = hidden_states, encoder_hidden_states
        q = heads_of(attn.to_q(h), attn.heads)
        out = _attended(q, attn.to_k(context), attn.to_v(context), attn.heads)
        for number, (to_k, to_v) in enumerate(zip(self.to_k_ip, self.to_v_ip, strict=True)):
            z = self._prompts.of(number, h)
            out = out + self._prompts.scale(number, self._group, h) * _attended(q, to_k(z), to_v(z), attn.heads)
        joined: Tensor = attn.to_out[1](attn.to_out[0](out))
        return joined


def _attended(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """q [rows, heads, N, d], k and v [rows, M, C] -> [rows, N, C]."""
    out: Tensor = scaled_dot_product_attention(q, heads_of(k, heads), heads_of(v, heads))
    return out.transpose(1, 2).flatten(2)


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


class PicturedUNet(nn.Module):
    """A UNet whose last inputs are `image_tokens` and `image_scale`. The others are passed to the inner UNet."""

    def __init__(self, network: nn.Module, prompts: ImagePrompts) -> None:
        super().__init__()
        self.network = network
        self._prompts = prompts

    def forward(self, *inputs: Tensor) -> Tensor:
        """One pass with these images."""
        self._prompts.give(*inputs[-2:])
        output: Tensor = self.network(*inputs[:-2])
        return output


def cross_attention_layers(unet: Any) -> list[str]:
    """Names of the cross-attention layers of a diffusers UNet, in the order of their numbers in IP-Adapters."""
    suffix = ".attn2.processor"
    return [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith(suffix)]


def pictured(unet: Any, network: nn.Module, images: Images, xl: bool) -> nn.Module:
    """`network`, which calls the UNet, with image prompts; without images `network` itself. Changes the UNet in place.

    xl  the UNet is SDXL's, which has other layers for style and layout
    """
    if not images.about:
        return network
    prompts = ImagePrompts([image.tokens for image in images.about])
    processors = dict(unet.attn_processors)
    for number, name in enumerate(cross_attention_layers(unet)):
        group = next((group for start, group in _GROUPS[xl].items() if name.startswith(start)), "rest")
        pairs = [layers[number] for layers in images.keys]
        processors[f"{name}.processor"] = ImageAttention(prompts, IMAGE_LAYERS.index(group), pairs)
    unet.set_attn_processor(processors)
    return PicturedUNet(network, prompts)
