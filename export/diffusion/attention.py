"""Cross-frame attention: self-attention of the UNet that also attends to tokens of earlier frames.

A layer attends to its own tokens h and to the tokens of references, g_0, g_1, ...:

    s_ij = q_i . k_j / sqrt(d) + b_j,      b_j = log(m_j)  for m_j > 0,  -10000 for m_j = 0

m_j is the multiplicity of a key: `own_weight` for an own token, and for a token of a reference the mean of
`past_weight` over its cell. A reference of weight 0 has no effect. Own weight 1 with references of weight 1 is
StreamV2V's extended attention (Liang et al. 2024). Own weight 0 with two references of weight 1 is Rerender-A-Video's
(Yang et al. 2023).

References are stored as the normalised tokens before to_k and to_v. These are half as many numbers as keys and values,
and live LoRAs apply to them as well. A merged layer stores the mean of every 2 x 2 tokens, with multiplicity four.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, scaled_dot_product_attention

from warpfuse.engine.bundle_parts import AttentionLayer

from ..onnx_writing import ExportError

Reach = Literal["low", "low+", "up", "all"]
"""Layers with references: the coarse ones of the decoder; these and the fine ones, merged; the whole decoder; all."""
REACHES: tuple[str, ...] = get_args(Reach)
MOST_REFERENCES = 2

OFF = -1e4  # logit of a missing key: float16 can represent it, and its softmax is exactly 0 beside any other key
MOST_TOKENS = 32 * 32  # in "low" and "low+", a layer with more tokens is merged


@dataclass(frozen=True, slots=True)
class PatchedLayer:
    """A layer with references.

    rows, columns  of its tokens
    width          channels of a token
    factor         width of a token in cells of the latent
    merged         2 x 2 tokens of a reference are merged into one
    """

    name: str
    rows: int
    columns: int
    width: int
    factor: int
    merged: bool

    @property
    def kept(self) -> AttentionLayer:
        """Size of the stored tokens of a reference, for `bundle.json`."""
        cell = 2 if self.merged else 1
        rows, columns = -(-self.rows // cell), -(-self.columns // cell)
        return AttentionLayer(name=self.name, rows=rows, columns=columns, width=self.width)


class References:
    """References for the layers of a network in the current pass, and the tokens that the layers store in it."""

    def __init__(self, layers: Sequence[PatchedLayer]) -> None:
        self.layers = tuple(layers)
        self._starts = [0, *accumulate(layer.numbers for layer in self.kept_layers)]
        self._left: list[Tensor | None] = []

    @property
    def kept_layers(self) -> tuple[AttentionLayer, ...]:
        """Sizes of the stored tokens of all layers, for `bundle.json`."""
        return tuple(layer.kept for layer in self.layers)

    def give(self, past: Tensor, past_weight: Tensor, own_weight: Tensor) -> None:
        """Begin a pass. past [rows, P, F], past_weight [rows, P, h, w], own_weight [rows, 1]."""
        self._past, self._past_weight, self._own_weight = past, past_weight, own_weight
        self._left = [None] * len(self.layers)
        self._logits: dict[tuple[int, int, int, bool], Tensor] = {}

    def of(self, number: int, own: Tensor) -> Tensor:
        """[rows, P M, C]: the tokens of the references for layer `number`, in the dtype of its `own`."""
        start, end = self._starts[number : number + 2]
        return self._past[:, :, start:end].reshape(own.shape[0], -1, own.shape[-1]).to(own.dtype)

    def logits(self, number: int, own: Tensor) -> Tensor:
        """b, [rows, 1, 1, N + P M], to be added to the logits of every query. Layers of equal size share the tensor."""
        layer = self.layers[number]
        key = (layer.rows, layer.columns, layer.factor, layer.merged)
        if key not in self._logits:
            weight = pooled(self._past_weight, 2 * layer.factor if layer.merged else layer.factor)
            if layer.merged:
                weight = weight * _members(layer, weight)
            own_weight = self._own_weight.expand(-1, layer.rows * layer.columns)
            m = torch.cat((own_weight, weight.flatten(1)), 1)
            b = torch.where(m > 0, m.clamp_min(1e-6).log(), torch.full_like(m, OFF))
            self._logits[key] = b[:, None, None].to(own.dtype)
        return self._logits[key]

    def leave(self, number: int, own: Tensor) -> None:
        """Store the tokens of layer `number`, [rows, N, C]."""
        layer = self.layers[number]
        kept = own
        if layer.merged:
            picture = own.transpose(1, 2).reshape(own.shape[0], layer.width, layer.rows, layer.columns)
            kept = pooled(picture, 2).flatten(2).transpose(1, 2)
        self._left[number] = kept.reshape(own.shape[0], -1)

    def kept(self) -> Tensor:
        """The stored tokens of all layers, [rows, F], in the dtype of `past`. Numbers that are not finite become 0, so
        that they do not spread to later frames."""
        left = [tokens for tokens in self._left if tokens is not None]
        assert len(left) == len(self.layers), "every layer is called once in a pass"
        return torch.nan_to_num(torch.cat(left, 1), 0.0, 0.0, 0.0).to(self._past.dtype)


def pooled(x: Tensor, factor: int) -> Tensor:
    """The mean of every factor x factor cell, [b, c, h, w] -> [b, c, h / factor, w / factor], rounded up.

    For an incomplete cell at the border it is the mean of its existing elements.
    """
    if factor == 1:
        return x
    if not any(_missing(x, factor)):
        return avg_pool2d(x, factor)
    return _padded(x, factor) / _padded(torch.ones_like(x[:1, :1]), factor)


def _padded(x: Tensor, factor: int) -> Tensor:
    below, right = _missing(x, factor)
    return avg_pool2d(pad(x, (0, right, 0, below)), factor)


def _missing(x: Tensor, factor: int) -> tuple[int, int]:
    """Rows and columns missing to the next multiple of `factor`."""
    h, w = (int(side) for side in x.shape[-2:])
    return -h % factor, -w % factor


def _members(layer: PatchedLayer, like: Tensor) -> Tensor | int:
    """Number of the layer's tokens in each merged token."""
    if layer.rows % 2 == 0 and layer.columns % 2 == 0:
        return 4
    return 4 * _padded(like.new_ones(1, 1, layer.rows, layer.columns), 2)


class CrossFrameAttention:
    """The processor of a self-attention layer that attends to its references as well."""

    def __init__(self, references: References, number: int) -> None:
        self._references, self._number = references, number

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """hidden_states [rows, N, C] -> [rows, N, C]. Layers of these families have no mask of their own."""
        h, references, number = hidden_states, self._references, self._number
        references.leave(number, h)
        context = torch.cat((h, references.of(number, h)), 1)
        q, k, v = (heads_of(x, attn.heads) for x in (attn.to_q(h), attn.to_k(context), attn.to_v(context)))
        out = scaled_dot_product_attention(q, k, v, attn_mask=references.logits(number, h))
        joined: Tensor = attn.to_out[1](attn.to_out[0](out.transpose(1, 2).reshape(h.shape)))
        return joined


def heads_of(x: Tensor, heads: int) -> Tensor:
    """[rows, M, C] -> [rows, heads, M, d]."""
    return x.view(x.shape[0], -1, heads, x.shape[-1] // heads).transpose(1, 2)


class RememberingUNet(nn.Module):
    """A UNet whose last inputs are `past`, `past_weight` and `own_weight`. The others are passed to the inner UNet.

    Returns  output, kept [rows, F]
    """

    def __init__(self, network: nn.Module, references: References) -> None:
        super().__init__()
        self.network = network
        self._references = references
        self.numbers = sum(layer.numbers for layer in references.kept_layers)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """One pass with these references."""
        self._references.give(*inputs[-3:])
        output: Tensor = self.network(*inputs[:-3])
        return output, self._references.kept()


def parse_reach(text: str | None, references: int | None) -> Reach | None:
    """Check `--attention` and `--references`. Raises ExportError for an unknown value, and for references without
    attention."""
    if text is None:
        if references is not None:
            raise ExportError(f"--references {references}: no layer sees any. Add --attention {'|'.join(REACHES)}")
        return None
    if text not in REACHES:
        raise ExportError(f"--attention {text}: expected {', '.join(REACHES)}")
    return cast(Reach, text)


def attach_references(unet: Any, reach: Reach, network: nn.Module, inputs: Mapping[str, Tensor]) -> References:
    """Add references to the layers of a diffusers UNet, in place.

    network, inputs  the network that calls the UNet, and inputs for it, with "x" [rows, 4, h, w]: the sizes of the
                     layers are measured in this call

    Raises ExportError: the UNet has other layers than its configuration says, or of another kind.
    """
    _check_complete(unet, reach)
    names = layer_names(unet.config, reach)
    modules = {name: unet.get_submodule(name) for name in names}
    for name, module in modules.items():
        _check_kind(name, module)
    met = _tokens_met(modules, network, inputs)
    latent = inputs["x"].shape[-2:]
    merging = reach in ("low", "low+")
    references = References([_layer(name, *met[name], (latent[0], latent[1]), merging) for name in names])
    processors = dict(unet.attn_processors)
    for number, name in enumerate(names):
        processors[f"{name}.processor"] = CrossFrameAttention(references, number)
    unet.set_attn_processor(processors)
    return references


def typical_references(
    network: RememberingUNet, inputs: Mapping[str, Tensor], count: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """`past`, in `dtype`, `past_weight` and `own_weight` for a call with `inputs`.

    The references are tokens that the network returns for the flipped latent. Weights are from 0.2 to 1.
    """
    x = inputs["x"]
    rows, (h, w) = x.shape[0], x.shape[-2:]
    off = (torch.zeros(rows, count, network.numbers), torch.zeros(rows, count, h, w), torch.ones(rows, 1))
    with torch.no_grad():
        turned = [x.flip(-1 - number) for number in range(count)]
        past = torch.stack([network(*{**inputs, "x": other}.values(), *off)[1] for other in turned], 1)
    weights = 0.2 + 0.8 * torch.rand(rows, count, h, w, generator=torch.Generator().manual_seed(0))
    return {"past": past.to(dtype), "past_weight": weights, "own_weight": torch.linspace(1.0, 0.5, rows)[:, None]}


def _check_complete(unet: Any, reach: str) -> None:
    """Raise ExportError unless the UNet has exactly the layers of self-attention that its configuration says."""
    found = {name.removesuffix(".processor") for name in unet.attn_processors if ".attn1." in name}
    known = set(layer_names(unet.config, "all"))
    if found != known:
        raise ExportError(
            f"--attention {reach}: the UNet has {len(found)} layers of self-attention, its configuration says "
            f"{len(known)}; the first that differs is {min(found ^ known)}. Give a checkpoint with its own config.json"
        )


def layer_names(config: Mapping[str, Any], reach: Reach) -> list[str]:
    """Names of the layers of self-attention in `reach`, by the configuration of a UNet; those of the decoder are last.

    "low" has the blocks of the decoder at a half and a quarter of the latent's side. For SDXL it has the half only,
    since the quarter has 30 layers there.
    """
    ups = _decoder_names(config)
    every = [name for block in ups.values() for name in block]
    if reach == "all":
        return [*_encoder_names(config), *every]
    if reach == "low":
        xl = config.get("addition_embed_type") is not None
        return [name for level, block in ups.items() if level in ((1,) if xl else (1, 2)) for name in block]
    return every


def _decoder_names(config: Mapping[str, Any]) -> dict[int, list[str]]:
    """Layers of the decoder by n, at 1 / 2^n of the latent's side."""
    counts, depths = _per_level(config)
    found = {}
    for block, kind in enumerate(config["up_block_types"]):
        level = len(counts) - 1 - block
        if "CrossAttn" in kind:
            found[level] = _named(f"up_blocks.{block}", counts[level] + 1, depths[level])
    return found


def _encoder_names(config: Mapping[str, Any]) -> list[str]:
    counts, depths = _per_level(config)
    found = []
    for block, kind in enumerate(config["down_block_types"]):
        if "CrossAttn" in kind:
            found += _named(f"down_blocks.{block}", counts[block], depths[block])
    return [*found, *_named("mid_block", 1, depths[-1])]


def _per_level(config: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """(attentions of a block of the encoder, layers of each) by level, finest first."""
    levels = len(config["down_block_types"])
    both = (config["layers_per_block"], config.get("transformer_layers_per_block") or 1)
    counts, depths = ([value] * levels if isinstance(value, int) else list(value) for value in both)
    return counts, depths


def _named(block: str, attentions: int, depth: int) -> list[str]:
    return [
        f"{block}.attentions.{number}.transformer_blocks.{layer}.attn1"
        for number in range(attentions)
        for layer in range(depth)
    ]


def _check_kind(name: str, layer: Any) -> None:
    """Raise ExportError for a layer with other parts than plain self-attention, which `CrossFrameAttention` lacks."""
    odd = [
        part for part in ("group_norm", "spatial_norm", "norm_q", "norm_k") if getattr(layer, part, None) is not None
    ]
    if layer.is_cross_attention or layer.residual_connection or layer.rescale_output_factor != 1 or odd:
        raise ExportError(f"--attention: {name} is no plain self-attention ({', '.join(odd) or 'it takes a context'})")


def _tokens_met(
    layers: Mapping[str, nn.Module], network: nn.Module, inputs: Mapping[str, Tensor]
) -> dict[str, tuple[int, int]]:
    """(tokens, width) of each layer in a call of one row, by name. Raises ExportError if a layer is not called."""
    met: dict[str, tuple[int, int]] = {}

    def noting(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> None:
            h = args[0] if args else kwargs["hidden_states"]
            met[name] = (h.shape[1], h.shape[2])

        return hook

    hooks = [layer.register_forward_pre_hook(noting(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            network(*(tensor[:1] for tensor in inputs.values()))
    finally:
        for hook in hooks:
            hook.remove()
    lost = next((name for name in layers if name not in met), None)
    if lost is not None:
        raise ExportError(f"--attention: the UNet never calls {lost}")
    return met


def _layer(name: str, tokens: int, width: int, latent: tuple[int, int], merging: bool) -> PatchedLayer:
    """The layer with this number of tokens. Raises ExportError if no halving of the latent, (h, w), has as many."""
    for factor in (1, 2, 4, 8, 16):
        rows, columns = (-(-side // factor) for side in latent)
        if rows * columns == tokens:
            return PatchedLayer(name, rows, columns, width, factor, merging and tokens > MOST_TOKENS)
    raise ExportError(f"--attention: {name} has {tokens} tokens, which is no halving of {latent[0]} x {latent[1]}")
