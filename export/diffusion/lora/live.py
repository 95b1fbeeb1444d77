"""Live LoRAs: branches beside the layers that they change, with their scales as an input of the network:

    y = W x + up (scale * (down x))

The scale is applied between the two factors, where a row has the fewest numbers. Each row has its own scale, since rows
of a stream batch are of different frames, and a change of settings affects only some of them. The LoRAs of a layer
share a branch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from warpfuse.engine.bundle_parts import LORA_SCALE_LIMIT, LiveLora

from ...onnx_writing import ExportError
from ..checkpoint import Checkpoint
from .forms import LowRank
from .merging import LeftOut, Lora, read_lora

MOST = 16  # LoRAs of a bundle


class Scales:
    """The scales for the branches of a network in the current pass, [rows, LoRAs]."""

    def __init__(self) -> None:
        self._columns: dict[tuple[int, ...], Tensor] = {}
        self._given: Tensor | None = None

    def give(self, scales: Tensor) -> None:
        """Begin a pass."""
        self._given, self._columns = scales, {}

    def of(self, columns: tuple[int, ...]) -> Tensor:
        """[rows, len(columns)]: one scale for each rank of a branch. Branches of the same LoRAs share the tensor."""
        assert self._given is not None, "a network with live LoRAs is called through LiveNetwork"
        if columns not in self._columns:
            self._columns[columns] = self._given[:, list(columns)]
        return self._columns[columns]


class Branch(nn.Module):
    """All live LoRAs of one layer: x [rows, ...] -> the tensor to add to the layer's output."""

    def __init__(self, layer: nn.Module, parts: Sequence[tuple[int, LowRank]], scales: Scales) -> None:
        super().__init__()
        halves = [_balanced(change) for _, change in parts]
        self.down = nn.Parameter(torch.cat([down for down, _ in halves]), requires_grad=False)
        up = torch.cat([up for _, up in halves], dim=1)
        self._conv: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            self._conv = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
            up = up[:, :, None, None]
        self.up = nn.Parameter(up.contiguous(), requires_grad=False)
        self._scales = scales
        self._columns = tuple(column for column, change in parts for _ in range(change.down.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Down, scale, up."""
        scale = self._scales.of(self._columns)
        if self._conv is not None:
            inner = functional.conv2d(x, self.down, **self._conv)
            return functional.conv2d(inner * scale[:, :, None, None], self.up)
        middle = [1] * (x.dim() - 2)
        inner = functional.linear(x, self.down)
        return functional.linear(inner * scale.view(scale.shape[0], *middle, scale.shape[1]), self.up)


class LiveNetwork(nn.Module):
    """A network whose last input is `lora_scale` [rows, LoRAs]. The others are passed to the inner network."""

    def __init__(self, network: nn.Module, scales: Scales) -> None:
        super().__init__()
        self.network = network
        self._scales = scales

    def forward(self, *inputs: Tensor) -> Any:
        """One pass at these scales."""
        self._scales.give(inputs[-1])
        return self.network(*inputs[:-1])


@dataclass(frozen=True, slots=True)
class LiveLoras:
    """The live LoRAs of a checkpoint.

    about       their descriptions, for `bundle.json`
    unet, text  scales for the branches in the UNet and in the text encoders; None: no LoRA changes it, and it has no
                input for scales
    """

    about: tuple[LiveLora, ...] = ()
    unet: Scales | None = None
    text: Scales | None = None

    def typical(self, rows: int) -> Tensor:
        """Scales for a test, [rows, LoRAs], different in every row: the default and below, with 1 for a default of
        0."""
        full = torch.tensor([[lora.default or 1.0 for lora in self.about]])
        return full * torch.linspace(1, 0, rows + 1)[:rows, None]


def attach_loras(
    checkpoint: Checkpoint, loras: Sequence[Lora], say: Callable[[str], None] = lambda line: None
) -> LiveLoras:
    """Add branches to the layers of `checkpoint` that the LoRAs change. Its weights are not changed.

    say  is called with a line for every LoRA

    Raises ExportError as `live_names` and `read_lora` do; then nothing is changed.
    """
    names = live_names(loras)
    parts: dict[nn.Module, list[tuple[int, LowRank]]] = {}
    of_text: set[nn.Module] = set()
    about = []
    for column, (name, lora) in enumerate(zip(names, loras, strict=True)):
        changes = _low_rank(checkpoint, lora, say)
        for change in changes:
            parts.setdefault(change.layer, []).append((column, change))
        of_text.update(change.layer for change in changes if change.text)
        about.append(LiveLora(name=name, default=lora.scale, text=any(change.text for change in changes)))
        say(f"{lora.path.name}: live as {name!r} in {len(changes)} layers, at {lora.scale:g} unless told otherwise")
    unet, text = Scales(), Scales()
    for layer, changes_of_layer in parts.items():
        add_branch(layer, changes_of_layer, text if layer in of_text else unet)
    return LiveLoras(tuple(about), unet if parts.keys() - of_text else None, text if of_text else None)


def add_branch(layer: nn.Module, parts: Sequence[tuple[int, LowRank]], scales: Scales) -> None:
    """Add a branch to the output of a layer. To be called once a layer.

    parts  (column of the scales, change) for each LoRA of the layer

    The branch is added by a hook. The layer is not replaced, since other code refers to it.
    """
    branch = Branch(layer, parts, scales)
    layer.add_module("lora", branch)
    layer.register_forward_hook(lambda _, args, output: output + branch(args[0]))


def _low_rank(checkpoint: Checkpoint, lora: Lora, say: Callable[[str], None]) -> list[LowRank]:
    """The changes of a LoRA that are products of two factors. Others are left out and reported. Raises ExportError."""
    left_out, found = LeftOut(), []
    for change in read_lora(checkpoint, lora, say):
        low_rank = change.low_rank()
        if low_rank is None:
            left_out.add(change.stem, f"{change.form} is merged or not taken at all: its scale cannot stay changeable")
        else:
            found.append(low_rank)
    if not found:
        raise ExportError(
            f"--lora {lora.path.name}: nothing of it can stay live: {'; '.join(left_out.lines())}. Export without "
            "--lora-live to merge it"
        )
    for line in left_out.lines():
        say(f"{lora.path.name}: {line}. Without --lora-live it is merged")
    return found


def live_names(loras: Sequence[Lora]) -> list[str]:
    """The name of each LoRA: that of its file, with "-" for characters that a key cannot have.

    Raises ExportError: no LoRAs, too many, repeated names, an empty name, or a scale out of range.
    """
    if not loras:
        raise ExportError("--lora-live keeps LoRAs live, and there is none: give --lora FILE.safetensors too")
    if len(loras) > MOST:
        raise ExportError(f"--lora-live: {len(loras)} LoRAs, expected {MOST} at most. Export without it to merge them")
    names: dict[str, Lora] = {}
    for lora in loras:
        name = re.sub(r"[^A-Za-z0-9_]+", "-", lora.path.stem).strip("-_")[:64]
        if not name:
            raise ExportError(f"--lora {lora.path.name}: a live LoRA is called as its file is. Rename it, as in ink")
        if name in names:
            raise ExportError(
                f"--lora {names[name].path} and {lora.path} would both be called {name!r}. Rename one of the files"
            )
        if not abs(lora.scale) <= LORA_SCALE_LIMIT:
            limit = f"{LORA_SCALE_LIMIT:g}"
            raise ExportError(f"--lora {lora.path.name}:{lora.scale:g}: expected a scale from -{limit} to {limit}")
        names[name] = lora
    return list(names)


def _balanced(change: LowRank) -> tuple[Tensor, Tensor]:
    """(down, up) with the same product bit for bit, and values that suit half precision.

    Some files have the whole magnitude of a LoRA in one factor, or 128 times too much, which alpha then takes away. The
    output of `down` would overflow or underflow. Here each row of `down` has a norm near 1 at the largest scale, like
    rows of the layer's own weight.
    """
    norm = change.down.flatten(1).norm(dim=1) * LORA_SCALE_LIMIT
    power = torch.where(norm > 0, torch.exp2(torch.round(torch.log2(norm))), 1.0)
    return change.down / power.view(-1, *[1] * (change.down.dim() - 1)), change.up * power
