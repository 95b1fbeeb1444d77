"""IP-Adapter inside the file of the UNet: a picture as a prompt, with scales for each row as an input.

    out = A(q, K_text, V_text) + sum_a scale_a A(q, W_k^a z_a, W_v^a z_a)        in every layer of cross-attention

z_a are the image tokens of adapter a (Ye et al. 2023): what its projection makes of a picture that a CLIP vision
encoder has seen. Both know nothing of the frame, so they are a network of their own here, which runs when the picture
changes. At scale 0 an adapter adds zeros: the UNet is the one without, to the bit.
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
# Where a layer stands in the UNet -> its group. Of SDXL as InstantStyle found it; of the small ones as it takes them.
_GROUPS: Mapping[bool, Mapping[str, str]] = {
    True: {"up_blocks.0.attentions.1.": "style", "down_blocks.2.attentions.1.": "layout"},
    False: {"up_blocks.1.": "style", "down_blocks.2.": "layout", "mid_block.": "layout"},
}


class ImageEncoder(nn.Module):
    """rgb [1, 3, S, S] in [0, 1] -> for each adapter its tokens [1, T, d] of the picture, and those of no picture.

    encoder      a CLIPVisionModelWithProjection
    projections  of the adapters, as diffusers has them: of the pooled vector, or of the last layer but one
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
        """A picture. Of each adapter two outputs, one adapter after the other."""
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
    """Whether it projects the pooled vector of the encoder, else the states of all its tokens."""
    from diffusers.models.embeddings import ImageProjection

    return isinstance(projection, ImageProjection)


@dataclass(frozen=True, slots=True)
class Images:
    """The style images of a checkpoint that is exported, opened.

    about     as `bundle.json` lists them
    encoders  the networks that pictures go through, each once
    keys      of each image, for each layer of cross-attention in the UNet's order: weights of its keys and values
    """

    about: tuple[StyleImage, ...] = ()
    encoders: tuple[ImageEncoder, ...] = ()
    keys: tuple[tuple[tuple[Tensor, Tensor], ...], ...] = ()

    def outputs(self, number: int) -> list[str]:
        """The names of what encoder `number` gives."""
        places = [place for place, image in enumerate(self.about) if image.network == number]
        return [name for place in places for name in (f"tokens_{place}", f"none_{place}")]

    @property
    def added(self) -> int:
        """Parameters in the UNet's file."""
        return sum(weight.numel() for layers in self.keys for pair in layers for weight in pair)

    def typical(self, tokens: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Inputs of the UNet: another scale in every column and row.

        tokens  what the networks gave, by name
        """
        if not self.about:
            return {}
        joined = torch.cat([tokens[f"tokens_{place}"] for place in range(len(self.about))], 1)
        columns = len(IMAGE_LAYERS) * len(self.about)
        scale = torch.linspace(1.0, 0.3, rows * columns).reshape(rows, columns)
        return {IMAGE_TOKENS: joined.repeat(rows, 1, 1), IMAGE_SCALE: scale}


class ImagePrompts:
    """What the layers of a network are given of the images in the pass under way."""

    def __init__(self, tokens: Sequence[int]) -> None:
        """tokens: of each image."""
        self._starts = [0, *accumulate(tokens)]

    def give(self, tokens: Tensor, scale: Tensor) -> None:
        """Begin a pass. tokens [rows, T, d], scale [rows, 3 n]."""
        self._tokens, self._scale = tokens, scale

    def of(self, number: int, own: Tensor) -> Tensor:
        """[rows, T, d]: the tokens of an image, in the type of a layer's own."""
        start, end = self._starts[number : number + 2]
        return self._tokens[:, start:end].to(own.dtype)

    def scale(self, number: int, group: int, own: Tensor) -> Tensor:
        """[rows, 1, 1]: how strongly the layers of a group take an image."""
        column = len(IMAGE_LAYERS) * number + group
        return self._scale[:, column].to(own.dtype).view(-1, 1, 1)


class ImageAttention(nn.Module):
    """The processor of a layer of cross-attention that attends to the images as well.

    group  of the layer, in `IMAGE_LAYERS`
    pairs  weights of keys and values, of each image
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
    """A UNet whose last inputs are `image_tokens` and `image_scale`; the others go on to the one inside."""

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
    """The layers of cross-attention of a diffusers UNet, in the order that IP-Adapters number them by."""
    suffix = ".attn2.processor"
    return [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith(suffix)]


def pictured(unet: Any, network: nn.Module, images: Images, xl: bool) -> nn.Module:
    """The network, which calls the UNet, with images; itself where there are none. Changes the UNet in place.

    xl  it is of SDXL, whose layers of style and layout are other ones
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
