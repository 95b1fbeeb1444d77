"""Cross-frame attention in UNets of ComfyUI: self-attention of a frame that also attends to other frames.

`set_model_attn1_patch` passes the normalised tokens n before their projection to keys and values. Tokens that are added
here are projected with them. The keys of a frame are [own ; anchor ; previous], of the same layer, level and pass of
guidance. If all keys are repeated equally often, attention does not change. So frame 0, whose anchor and past are
itself, is unchanged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from warpfuse.engine.errors import BadInput

BLOCKS = {"output": ("output",), "all": ("input", "middle", "output")}
"""Blocks of a UNet: those of the decoder, as in Rerender-A-Video, or all."""

LARGEST_BLOCK = 12
"""Exceeds the number of blocks of one kind in any UNet of ComfyUI."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the three groups of tokens, 0..1; 0: not used. Not all may be 0."""

    own: float = 1.0
    anchor: float = 1.0
    previous: float = 1.0

    @property
    def parts(self) -> tuple[float, ...]:
        """The weights above 0, in the order of the keys."""
        return tuple(weight for weight in (self.own, self.anchor, self.previous) if weight > 0)

    @property
    def plain(self) -> bool:
        """All keys have the same weight."""
        return len(set(self.parts)) == 1

    def need_some(self) -> None:
        """Raise BadInput if all weights are 0."""
        if not self.parts:
            raise BadInput("own, anchor and previous are all 0: a frame has to attend to something. Set one above 0")

    def keys(self, own: Tensor, anchor: Tensor, previous: Tensor) -> Tensor:
        """[rows, N, C] each -> [rows, parts N, C]."""
        offered = ((self.own, own), (self.anchor, anchor), (self.previous, previous))
        return torch.cat([tokens for weight, tokens in offered if weight > 0], dim=1)


class BatchCrossFrame:
    """The patch for a batch of frames in one sampling. The anchor is the first frame. It has no state."""

    def __init__(self, weights: Weights, blocks: str) -> None:
        weights.need_some()
        self._weights = weights
        self._blocks = BLOCKS[blocks]

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """n [rows, N, C]: for each pass of guidance all frames, in their order."""
        if not _takes_part(n, context, extra, self._blocks):
            return n, context, value
        chunks = n.chunk(len(extra["cond_or_uncond"]))  # frames must not attend to those of another pass of guidance
        keys = torch.cat([self._of_chunk(chunk) for chunk in chunks])
        return n, keys, keys

    def _of_chunk(self, n: Tensor) -> Tensor:
        return self._weights.keys(n, n[:1].expand_as(n), torch.cat((n[:1], n[:-1])))


@dataclass
class StreamCrossFrame:
    """The patch for frames sampled one after the other. It keeps the tokens of the frame before and of the anchor.

    `begin` has to be called before each frame. Memory: the tokens of three frames, for all layers in `blocks` and all
    levels.
    """

    anchored: bool
    blocks: str = "output"
    _now: dict[Any, Tensor] = field(default_factory=dict, repr=False)
    _before: dict[Any, Tensor] = field(default_factory=dict, repr=False)
    _anchor: dict[Any, Tensor] = field(default_factory=dict, repr=False)
    _first: bool = True

    def __len__(self) -> int:
        """Number of stored tensors, over frames, layers, levels and passes of guidance."""
        return len(self._now) + len(self._before) + len(self._anchor)

    def begin(self, cut: bool) -> None:
        """Begin a frame. cut: it has no past and becomes the anchor of later frames."""
        if self._first and self._now:
            self._anchor = self._now
        self._before, self._now = self._now, {}
        self._first = cut
        if cut:
            self._before, self._anchor = {}, {}

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """n [passes of guidance, N, C] of one frame."""
        if not _takes_part(n, context, extra, BLOCKS[self.blocks]):
            return n, context, value
        place = (*extra["block"], extra.get("block_index", 0), float(extra["sigmas"][0]))
        rows = []
        for kind, own in zip(extra["cond_or_uncond"], n.chunk(len(extra["cond_or_uncond"])), strict=True):
            key = (*place, kind)
            self._now[key] = own.clone()
            if self._first:
                rows.append(own)
                continue
            previous = self._before.get(key, own)
            seen = (own, self._anchor.get(key, own), previous) if self.anchored else (own, previous)
            rows.append(torch.cat([tokens.to(own) for tokens in seen], dim=1))
        keys = torch.cat(rows)
        return n, keys, keys


class WeightedAttention:
    """Replaces the self-attention of a layer if weights differ: log m is added to the logit of a key of weight m."""

    def __init__(self, weights: Weights) -> None:
        self._parts = weights.parts

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any]) -> Tensor:
        """q [rows, N, C], k and v [rows, parts N, C], projected -> [rows, N, C]."""
        tokens = q.shape[1]
        mask = None
        if k.shape[1] == len(self._parts) * tokens:  # otherwise the layer has no added keys
            logits = torch.tensor(self._parts, device=q.device, dtype=torch.float32).log().to(q.dtype)
            mask = logits.repeat_interleave(tokens)[None, None, None]
        q, k, v = (_heads(x, int(extra["n_heads"])) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def patched(model: Any, weights: Weights, blocks: str) -> Any:
    """A clone of a MODEL of ComfyUI with cross-frame attention. Raises BadInput."""
    model = model.clone()
    model.set_model_attn1_patch(BatchCrossFrame(weights, blocks))
    if not weights.plain:
        attention = WeightedAttention(weights)
        for block in BLOCKS[blocks]:
            for number in range(LARGEST_BLOCK):
                model.set_model_attn1_replace(attention, block, number)
    return model


def _takes_part(n: Tensor, context: Tensor, extra: Mapping[str, Any], blocks: Sequence[str]) -> bool:
    """The layer is self-attention in one of the blocks. In some layers `attn1` attends to the prompt."""
    block = extra.get("block")
    return block is not None and block[0] in blocks and context.shape == n.shape


def _heads(x: Tensor, heads: int) -> Tensor:
    rows, tokens, width = x.shape
    return x.view(rows, tokens, heads, width // heads).transpose(1, 2)
