"""The change of a layer's weights by an adapter, from the tensors in its file, in double precision.

    LoRA, LoCon   s up down                         W, up [out,r], down [r,in,...]; Hu et al. 2021, eq. 3
    with a core   s core x1 up x2 down              core [r,r',k,k], up [out,r], down [r',in]
    LoHa          s (w1_a w1_b) o (w2_a w2_b)       either factor may have a core: t, w_a [r,out], w_b [r,in]
    LoKr          s kron(w1, w2)                    either may be a product, and w2 may have a core
    full, norm    diff; diff_b for the bias         without s
    IA3           W o weight                        LyCORIS: a factor beside 1;  PEFT: W o (ia3_l - 1)
    DoRA          m V / |V| - W,  V = W + the above  Liu et al. 2024, eq. 5; m for each output or each input

s is alpha / rank (`strength`), times `scalar` if the file has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from warpfuse.engine.errors import one_line

Parts = Mapping[str, Tensor]

_LOHA = frozenset(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"))
_LOKR = frozenset(("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"))
_SCALED = frozenset(("alpha", "scalar"))


class Unfit(Exception):
    """The tensors for a layer are no complete adapter."""


class OtherShape(Unfit):
    """The adapter is for a layer of another shape."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one layer by a file, at scale 1.

    layer  nn.Linear, nn.Conv2d, or a norm
    text   the layer is of a text encoder, not of the UNet
    stem   name of the layer in the file
    parts  the file's tensors, by role
    s      alpha / rank
    """

    layer: nn.Module
    text: bool
    stem: str
    parts: Parts = field(repr=False)
    s: float

    def deltas(self) -> dict[str, Tensor]:
        """The tensors to add at scale 1, float64, by "weight" and "bias". Raises Unfit."""
        parts = {role: tensor.double() for role, tensor in self.parts.items()}
        found = {}
        weight = _delta(parts, self.layer, self.s)
        if weight is not None:
            found["weight"] = weight
        bias = [parts[role] for role in ("diff_b",) if role in parts]
        bias += [self.s * parts[role] for role in ("up_bias",) if role in parts]
        bias += _ia3_of_bias(parts, self.layer)
        if bias:
            outputs = _weight(self.layer).shape[0]
            if any(one.numel() != outputs for one in bias):
                raise OtherShape(f"a bias of {bias[0].numel()}, the layer has {outputs} outputs")
            found["bias"] = torch.stack([one.flatten() for one in bias]).sum(0)
        return found

    @property
    def form(self) -> str:
        """Name of the form."""
        if not self.parts.keys().isdisjoint(("magnitude", "output_magnitude")):
            return "DoRA"
        for name, own in (("LoHa", _LOHA), ("LoKr", _LOKR), ("IA3", ("on_input", "ia3_l"))):
            if not self.parts.keys().isdisjoint(own):
                return name
        return "LoRA" if {"down", "up"} == set(self.parts) - _SCALED else "a difference of weights or biases"

    def low_rank(self) -> LowRank | None:
        """The change as a product of two factors; None if it has another form. Raises Unfit."""
        if not {"down", "up"} <= set(self.parts) <= {"down", "up", "core"} | _SCALED:
            return None
        self.deltas()  # checks the shapes
        weight = _weight(self.layer)
        parts = {role: tensor.float() for role, tensor in self.parts.items()}
        down, up = parts["down"], parts["up"].flatten(1)
        if "core" in parts:
            down = torch.einsum("ab...,bi->ai...", parts["core"], down.flatten(1))
        s = self.s * float(parts.get("scalar", torch.tensor(1.0)))
        return LowRank(self.layer, self.text, down.reshape(-1, *weight.shape[1:]), up * s)


@dataclass(frozen=True, slots=True)
class LowRank:
    """A change of the form W + up down, at scale 1.

    down   [rank, *shape of the layer's weight but the first axis], float32
    up     [outputs of the layer, rank], float32, times alpha / rank
    """

    layer: nn.Module
    text: bool
    down: Tensor
    up: Tensor


def rank_of(parts: Parts) -> int | None:
    """The rank by which alpha is divided; None for a form without a rank."""
    for role in ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if role in parts and parts[role].dim() > 1:
            return parts[role].shape[0]
    return None


def _delta(parts: dict[str, Tensor], layer: nn.Module, s: float) -> Tensor | None:
    """The tensor to add to the weight; None: nothing. Raises Unfit."""
    weight = _weight(layer).double()
    try:
        products = [product for form in (_low_rank, _hadamard, _kronecker) if (product := form(parts)) is not None]
    except (RuntimeError, IndexError) as error:
        raise Unfit(f"its halves do not fit each other ({one_line(error, 80)})") from None
    scalar = float(parts["scalar"]) if "scalar" in parts else 1.0
    sums = [s * scalar * _fitted(product, weight) for product in products]
    if "diff" in parts:
        sums.append(_fitted(parts["diff"], weight))
    sums += _ia3(parts, weight)
    magnitude = _magnitude(parts, weight)
    if not sums and magnitude is None:
        return None
    total = torch.stack(sums).sum(0) if sums else torch.zeros_like(weight)
    return total if magnitude is None else _decomposed(weight + total, magnitude) - weight


def _low_rank(parts: Parts) -> Tensor | None:
    if parts.keys().isdisjoint(("down", "up", "core")):
        return None
    _need(parts, "down", "up")
    down, up = parts["down"], parts["up"]
    if up.dim() > 2 and up[0, 0].numel() != 1:
        raise Unfit(f"up is {list(up.shape)}, expected a kernel of 1x1")
    up = up.flatten(1)
    if "core" in parts:
        if down.dim() > 2 and down[0, 0].numel() != 1:
            raise Unfit(f"down is {list(down.shape)} beside a core, expected a kernel of 1x1")
        return torch.einsum("ab...,oa,bi->oi...", parts["core"], up, down.flatten(1))
    return up @ down.flatten(1)


def _hadamard(parts: Parts) -> Tensor | None:
    if parts.keys().isdisjoint(_LOHA):
        return None
    _need(parts, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    factors = []
    for core, a, b in (("hada_t1", "hada_w1_a", "hada_w1_b"), ("hada_t2", "hada_w2_a", "hada_w2_b")):
        if core in parts:
            factors.append(torch.einsum("ab...,ao,bi->oi...", parts[core], parts[a], parts[b]))
        else:
            factors.append(parts[a] @ parts[b].flatten(1))
    return factors[0] * factors[1]


def _kronecker(parts: Parts) -> Tensor | None:
    if parts.keys().isdisjoint(_LOKR):
        return None
    first = parts["lokr_w1"] if "lokr_w1" in parts else _factored(parts, "lokr_w1_a", "lokr_w1_b")
    if "lokr_w2" in parts:
        second = parts["lokr_w2"]
    elif "lokr_t2" in parts:
        _need(parts, "lokr_w2_a", "lokr_w2_b")
        second = torch.einsum("ab...,ao,bi->oi...", parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    else:
        second = _factored(parts, "lokr_w2_a", "lokr_w2_b")
    first = first.reshape(*first.shape, *[1] * (second.dim() - first.dim()))
    return torch.kron(first, second.contiguous())


def _factored(parts: Parts, a: str, b: str) -> Tensor:
    _need(parts, a, b)
    return parts[a].flatten(1) @ parts[b].flatten(1)


def _ia3(parts: Parts, weight: Tensor) -> list[Tensor]:
    if "on_input" in parts:
        _need(parts, "weight")
        return [_along(parts["weight"], weight, int(parts["on_input"])) * weight]
    if "ia3_l" in parts:
        return [(_along(parts["ia3_l"], weight, int(_of_inputs(parts["ia3_l"], weight))) - 1) * weight]
    return []


def _ia3_of_bias(parts: Parts, layer: nn.Module) -> list[Tensor]:
    """The tensors to add to the bias. PEFT scales the output of a layer, with the bias; LyCORIS only the weight."""
    bias: Any = layer.bias
    if "ia3_l" not in parts or bias is None or _of_inputs(parts["ia3_l"], _weight(layer)):
        return []
    return [(parts["ia3_l"].flatten() - 1) * bias.detach().double()]


def _of_inputs(factor: Tensor, weight: Tensor) -> bool:
    """The factor is for inputs, not outputs. PEFT has [out, 1] or [1, in] for a linear layer, and [1, out, 1, 1] or
    [1, in, 1, 1] for a convolution."""
    if factor.dim() > 2 and weight.shape[0] == weight.shape[1]:
        raise Unfit("it does not say whether its factors are of inputs or of outputs")
    return factor.dim() > 1 and factor.shape[0] == 1 and (factor.dim() == 2 or factor.numel() != weight.shape[0])


def _along(factor: Tensor, weight: Tensor, axis: int) -> Tensor:
    """The factor for each output (axis 0) or input (axis 1), in a shape to be multiplied by the weight."""
    if weight.dim() < 2 or factor.numel() != weight.shape[axis]:
        raise OtherShape(f"it has {factor.numel()} factors, the layer is {list(weight.shape)}")
    shape = [1] * weight.dim()
    shape[axis] = -1
    return factor.reshape(shape)


def _magnitude(parts: Parts, weight: Tensor) -> Tensor | None:
    """The magnitude of each output, [out, 1, ...], or each input, [1, in, ...]; None: no DoRA. PEFT's is always of the
    outputs."""
    if "output_magnitude" in parts:
        return _along(parts["output_magnitude"], weight, 0)
    if "magnitude" not in parts:
        return None
    magnitude = parts["magnitude"]
    return _along(magnitude, weight, int(magnitude.dim() > 1 and magnitude.shape[0] == 1))


def _decomposed(v: Tensor, magnitude: Tensor) -> Tensor:
    """m V / |V|, with the norm over all elements that share a magnitude."""
    axes = [axis for axis, size in enumerate(magnitude.shape) if size == 1]
    norm: Tensor = torch.linalg.vector_norm(v, dim=axes, keepdim=True)
    return magnitude * v / norm.clamp_min(torch.finfo(torch.float64).tiny)


def _fitted(delta: Tensor, weight: Tensor) -> Tensor:
    """`delta` in the shape of the weight: a file may have 1x1 kernels for a linear layer, and vice versa."""
    own, wanted = (one.flatten(1) if one.dim() > 1 else one for one in (delta, weight))
    if own.shape != wanted.shape:
        raise OtherShape(f"it is {list(delta.shape)}, the layer is {list(weight.shape)}")
    return delta.reshape(weight.shape)


def _need(parts: Parts, *roles: str) -> None:
    missing = [role for role in roles if role not in parts]
    if missing:
        raise Unfit(f"it has no {', '.join(missing)}")


def _weight(layer: nn.Module) -> Tensor:
    weight: Any = layer.weight
    found: Tensor = weight.detach()
    return found
