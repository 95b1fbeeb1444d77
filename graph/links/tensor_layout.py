"""Frames as planes with a typed description, and back. No memory is owned here.

A `RawFrame` is one plane of uint8. A `Frame` has one plane for each of its tensors. The description
(`messages.Content`) gives the offset, shape and memory layout of each plane in its slot. The layout is kept because the
last bit of a network's output depends on it.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from math import prod
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages
from warpfuse.stages.frame import TENSORS, Frame, Hints, Latent, Mask, Motion, Picture, RawFrame, SoundPiece, Stamp

ALIGNMENT = 64  # of a plane in its slot, bytes: a cache line, and the width of the widest vector registers

_DTYPES: dict[messages.Dtype, torch.dtype] = {
    "bool": torch.bool, "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32,
    "int64": torch.int64, "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32,
    "float64": torch.float64,
}  # fmt: skip
_STAMPED = tuple(field.name for field in fields(Stamp) if field.name != "seq")  # the message itself has seq
_FRAMES: dict[messages.Kind, type[Frame]] = {
    "nothing": Frame,
    "picture": Picture,
    "latent": Latent,
    "motion": Motion,
    "mask": Mask,
}
_KINDS = {RawFrame: "raw", SoundPiece: "sound", Hints: "hints"} | {form: kind for kind, form in _FRAMES.items()}
_NEEDED = {
    form: {field.name for field in fields(form) if field.name != "stamp" and field.default is MISSING}
    for form in _FRAMES.values()
}  # tensors that a frame of this class must have
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Packing:
    """A value prepared for a slot. tensors: one for each plane of `content`; nbytes: size of all planes, aligned."""

    content: messages.Content
    tensors: tuple[Tensor, ...]
    nbytes: int


def pack(value: Any) -> Packing:
    """Describe a RawFrame, Frame or SoundPiece, without copying it. Raises TypeError for anything else."""
    if isinstance(value, RawFrame):
        named = [("rgb", torch.from_numpy(value.rgb))]
    elif isinstance(value, SoundPiece):
        named = [("sound", torch.from_numpy(value.nut))]
    elif isinstance(value, Frame):
        named = list(value.tensors.items())
    else:
        raise TypeError(f"links carry RawFrame, Frame and SoundPiece, a stage gave {type(value).__name__}")
    planes, offset = [], 0
    for name, tensor in named:
        planes.append(messages.Plane(name, _NAMES[tensor.dtype], tuple(tensor.shape), offset, _order(tensor)))
        offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    stamp: Stamp = value.stamp
    device = str(named[0][1].device) if named else "cpu"
    kind: Any = _KINDS[type(value)]
    stamped = {name: getattr(stamp, name) for name in _STAMPED}
    content = messages.Content(kind=kind, device=device, planes=tuple(planes), **stamped)
    return Packing(content, tuple(tensor.detach() for _, tensor in named), offset)


def unpack(message: messages.FrameMessage, tensors: Sequence[Tensor]) -> RawFrame | Frame | SoundPiece:
    """The value that a checked message describes, made of these tensors without a copy on the host."""
    content = message.content
    assert content is not None
    stamp = Stamp(message.seq, **{name: getattr(content, name) for name in _STAMPED})
    if content.kind == "raw":
        return RawFrame(stamp, tensors[0].numpy())
    if content.kind == "sound":
        return SoundPiece(stamp, tensors[0].numpy())
    named = {plane.name: tensor for plane, tensor in zip(content.planes, tensors, strict=True)}
    there = {name: _on_device(tensor, content.device) for name, tensor in named.items()}
    return (Hints if content.kind == "hints" else _FRAMES[content.kind]).of(stamp, there)


def check(content: messages.Content | None, slot_bytes: int) -> messages.Content:
    """The description, checked. Raises WireError when it contradicts itself or does not fit a slot of this size."""
    if content is None:
        raise WireError("a frame from another process comes without a description")
    names = [plane.name for plane in content.planes]
    if len(set(names)) != len(names):
        raise WireError(f"planes have the same name: {', '.join(names)}")
    if content.kind == "raw" and (
        names != ["rgb"] or content.planes[0].dtype != "uint8" or content.planes[0].shape[2:] != (3,)
    ):
        raise WireError("a RawFrame is one plane rgb, uint8 [h, w, 3]")
    if content.kind == "sound" and (
        names != ["sound"] or content.planes[0].dtype != "uint8" or len(content.planes[0].shape) != 1
    ):
        raise WireError("a SoundPiece is one plane sound, uint8 [bytes]")
    form = _FRAMES.get(content.kind)
    if form is not None and not _NEEDED[form] <= set(names) <= set(TENSORS[form]):
        raise WireError(f"a {form.__name__} has the planes {', '.join(TENSORS[form])}, got {', '.join(names)}")
    for plane in content.planes:
        if plane.order and sorted(plane.order) != list(range(len(plane.shape))):
            raise WireError(f"plane {plane.name}: {list(plane.order)} is no order of {len(plane.shape)} dimensions")
        if plane.offset % ALIGNMENT:
            raise WireError(f"plane {plane.name}: offset {plane.offset} is no multiple of {ALIGNMENT}")
        if plane.offset + nbytes_of(plane) > slot_bytes:
            raise WireError(
                f"plane {plane.name}: {plane.dtype} {list(plane.shape)} at {plane.offset} ends outside of a slot"
                f" of {slot_bytes} bytes"
            )
    return content


def nbytes_of(plane: messages.Plane) -> int:
    """Size of a plane in bytes."""
    return prod(plane.shape) * _DTYPES[plane.dtype].itemsize


def dtype_of(plane: messages.Plane) -> torch.dtype:
    """Element type of a plane."""
    return _DTYPES[plane.dtype]


def view(buffer: Any, start: int, plane: messages.Plane) -> Tensor:
    """A tensor over a plane of the slot that begins at byte `start` of a writable buffer.

    The bounds are not checked here: `check` has been called before.
    """
    dtype, shape = _DTYPES[plane.dtype], plane.shape
    count = prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(buffer, dtype=dtype, count=count, offset=start + plane.offset)
    return laid_out(flat, plane)


def laid_out(flat: Tensor, plane: messages.Plane) -> Tensor:
    """A flat tensor of a plane's elements, in the order of memory, as a view of the plane's shape."""
    if not plane.order:
        return flat.view(plane.shape)
    outer = flat.view([plane.shape[d] for d in plane.order])
    return outer.permute([plane.order.index(d) for d in range(len(plane.shape))])


def _order(tensor: Tensor) -> tuple[int, ...]:
    """A tensor's dimensions from outermost to innermost in memory; () for a contiguous tensor.

    A tensor with holes or repeated elements (expanded) counts as contiguous, since it is copied into that form.
    """
    if tensor.is_contiguous():
        return ()
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda d: strides[d], reverse=True))
    return order if tensor.permute(order).is_contiguous() else ()


def _on_device(tensor: Tensor, device: str) -> Tensor:
    """The tensor on the card where the sender had it; on the host if this machine has no such card."""
    if device == "cpu" or tensor.is_cuda or int(device.removeprefix("cuda:")) >= card.count():
        return tensor
    return tensor.to(device)
