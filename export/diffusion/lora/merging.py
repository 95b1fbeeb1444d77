"""Reading a file of a LoRA or one of its relatives, and adding its changes to the weights of a checkpoint.

    W' = W + scale delta(W)

`forms` computes the deltas. They are added in double precision and rounded once to single precision.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...onnx_writing import ExportError
from ..checkpoint import Checkpoint
from ..weights import check_safetensors
from .forms import Change, OtherShape, Unfit, rank_of
from .names import LayerNames, kind_of, roles
from .strength import Strengths, strengths

_NAMED = 3  # number of names in a line on tensors that are left out


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA file and its scale."""

    path: Path
    scale: float = 1.0


def parse_lora(text: str) -> Lora:
    """Parse FILE or FILE:SCALE. Raises ExportError: no such file."""
    match = re.fullmatch(r"(.+?):([+-]?\d*\.?\d+)", text)
    path, scale = (Path(match[1]), float(match[2])) if match else (Path(text), 1.0)
    if not path.expanduser().is_file():
        raise ExportError(f"--lora {text}: {path} is no file. Expected FILE.safetensors or FILE.safetensors:SCALE")
    return Lora(path.expanduser(), scale)


class LeftOut:
    """Collects the parts of a file that are left out, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, reason: str) -> None:
        """Add a part. name: its key, with or without the ending."""
        self._names.setdefault(reason, []).append(name)

    def lines(self) -> list[str]:
        """A line for each reason, with the first names."""
        found = []
        for reason, names in self._names.items():
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            found.append(f"left out {', '.join(names[:_NAMED])}{more}: {reason}")
        return found


def merge_lora(checkpoint: Checkpoint, lora: Lora, say: Callable[[str], None] = lambda line: None) -> int:
    """Add the changes of a file to the weights of `checkpoint`, in place. Returns the number of changed layers.

    say  is called with a line for parts that are left out

    Raises ExportError as `read_lora` does; then nothing is changed.
    """
    changes = read_lora(checkpoint, lora, say)
    for change in changes:
        for name, delta in change.deltas().items():
            _add(change.layer, name, lora.scale * delta)
    return len(changes)


def read_lora(checkpoint: Checkpoint, lora: Lora, say: Callable[[str], None] = lambda line: None) -> list[Change]:
    """Read the changes of a file for the layers of `checkpoint`, which is not changed.

    say  is called with a line for parts that are left out: other tensors, missing layers, layers of another shape

    Raises ExportError: pickled or damaged, nothing that fits, made for another architecture.
    """
    tensors, strength = _read(lora.path)
    unet: Any = checkpoint.unet
    per_block = unet.config.layers_per_block
    layers = LayerNames(checkpoint.unet, checkpoint.text, per_block if isinstance(per_block, int) else per_block[0])
    found, odd = roles(tensors)
    left_out, changes = LeftOut(), []
    for key in odd:
        left_out.add(key, f"it is of {kind}" if (kind := kind_of(key)) else "no tensor of a LoRA")
    whole = {stem: keys for stem, keys in found.items() if not any(key.startswith(f"{stem}.") for key in odd)}
    for stem, keys in whole.items():
        layer = layers.find(stem)
        if layer is None:
            left_out.add(stem, f"{checkpoint.name} ({checkpoint.family.name}) has no such layer")
            continue
        change = _change(
            layer, layers.of_text(stem), stem, {role: tensors[key] for role, key in keys.items()}, strength
        )
        try:
            deltas = change.deltas()
            if not deltas:
                raise Unfit(f"it has {', '.join(keys)} alone")
            if not all(bool(torch.isfinite(delta).all()) for delta in deltas.values()):
                raise Unfit("its numbers are not finite")
        except Unfit as error:
            if layers.reads_the_prompt(stem) and isinstance(error, OtherShape):
                raise ExportError(
                    f"--lora {lora.path.name}: {stem}: {error}. It was made for another architecture than "
                    f"{checkpoint.family.name}'s"
                ) from None
            left_out.add(stem, str(error))
        else:
            changes.append(change)
    if not changes:
        why = "; ".join(left_out.lines()) or "it holds no tensor"
        raise ExportError(
            f"--lora {lora.path.name}: nothing in it fits {checkpoint.name} ({checkpoint.family.name}). It was made "
            f"for another architecture, or is no LoRA: {why}"
        )
    for line in left_out.lines():
        say(f"{lora.path.name}: {line}")
    return changes


def _change(layer: nn.Module, text: bool, stem: str, parts: dict[str, Tensor], strength: Strengths) -> Change:
    alpha = float(parts["alpha"].flatten()[0]) if "alpha" in parts else None
    return Change(layer, text, stem, parts, strength.of(stem, alpha, rank_of(parts)))


def _add(layer: nn.Module, name: str, delta: Tensor) -> None:
    """Add `delta` to a parameter. A layer without a bias gets one."""
    own: Any = getattr(layer, name)
    old = 0.0 if own is None else own.detach().double()
    summed = (old + delta).float()
    if own is None:
        layer.register_parameter(name, nn.Parameter(summed, requires_grad=False))
    else:
        with torch.no_grad():
            own.copy_(summed)


def _read(path: Path) -> tuple[dict[str, Tensor], Strengths]:
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        raise ExportError(f"--lora {path}: expected a .safetensors file; pickled ones are refused, they can run code")
    check_safetensors(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        metadata = file.metadata() or {}
    return tensors, strengths(path, metadata)
