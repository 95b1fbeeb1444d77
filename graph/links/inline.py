"""The inline transport: a frame's planes follow its message. For other hosts, which share no memory with the sender.

By default the planes are sent raw, without a copy. lz4 needs less bandwidth and is lossless. jpeg needs a fraction of
the bandwidth, is lossy and encodes uint8 pictures only, so it is used only where it is set. Both exist because raw
pictures of 1280 x 720 at 25 a second take 553 Mbit/s, more than most wireless networks carry.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import lz4.block
import msgspec
import numpy as np
import torch
from torch import Tensor

from warpfuse.graph.errors import ConfigError, WireError
from warpfuse.graph.links import messages, tensor_layout
from warpfuse.graph.links.link_plan import Transport
from warpfuse.graph.links.slots import Parcel, SlotTable

_MAX_FRAME = 1 << 30  # bytes of one frame's planes


class InlineSlots:
    """The sender's side (`slots.Store`). A slot keeps its planes alive until the credit, while ZeroMQ may read them.

    coding  raw, lz4, or jpeg:QUALITY (1..100). Raises ConfigError for another
    """

    transport: Transport = "inline"

    def __init__(self, slots: int, coding: str = "raw") -> None:
        self.agreed = messages.Welcome(slots)
        self._table = SlotTable(slots)
        self._coding, self._quality = parse_coding(coding)

    @property
    def in_use(self) -> int:
        """Slots filled and not yet released."""
        return self._table.in_use

    def fill(self, seq: int, value: Any, sent_ns: int = 0) -> Parcel:
        """Put the planes of a RawFrame or Frame into a slot. A plane on the host is copied only if its memory has
        holes or it is encoded."""
        packing = tensor_layout.pack(value)
        described, parts = [], []
        for plane, tensor in zip(packing.content.planes, packing.tensors, strict=True):
            plane, part = self._encoded(plane, _flat(tensor, plane))
            described.append(plane)
            parts.append(part)
        slot, generation = self._table.put(parts)
        content = msgspec.structs.replace(packing.content, planes=tuple(described))
        return Parcel(messages.FrameMessage(seq, slot, generation, content=content, sent_ns=sent_ns), tuple(parts))

    def free(self, message: messages.FrameMessage) -> None:
        """Free the slot of a frame whose credit was returned: ZeroMQ does not read its planes any more."""
        self._table.free(message)

    def close(self) -> None:
        """Nothing to release: ZeroMQ keeps references to the planes that it still sends."""

    def _encoded(self, plane: messages.Plane, flat: Tensor) -> tuple[messages.Plane, Any]:
        data: Any = flat.numpy().data
        if self._coding == "lz4" and len(data):
            packed = lz4.block.compress(data, store_size=False)
            return (_as(plane, "lz4"), packed) if len(packed) < len(data) else (plane, data)
        if self._coding == "jpeg" and _is_picture(plane):
            done, jpeg = cv2.imencode(
                ".jpg", flat.view(plane.shape).numpy()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self._quality]
            )
            if not done:
                raise WireError(f"plane {plane.name}: OpenCV could not write {list(plane.shape)} as JPEG")
            return _as(plane, "jpeg"), jpeg.data
        return plane, data


class InlineAccess:
    """The reader's side (`slots.Access`). Raw planes are views of ZeroMQ's message; the others are decoded."""

    transport: Transport = "inline"

    def __init__(self, slots: int) -> None:
        self._slots = slots

    def agree(self, welcome: messages.Welcome) -> None:
        """Check the number of slots. Raises WireError when it differs or memory is named: inline shares none."""
        if welcome.slots != self._slots or welcome.memory or welcome.handles:
            raise WireError(f"the sender has {welcome.slots} slots, agreed were {self._slots} without memory")

    def admit(self, message: messages.FrameMessage, parts: Sequence[Any]) -> None:
        """Check that every plane has the size its description says. Raises WireError."""
        if not 0 <= message.slot < self._slots:
            raise WireError(f"slot {message.slot} of a table of {self._slots}")
        content = tensor_layout.check(message.content, _MAX_FRAME)
        if len(parts) != len(content.planes):
            raise WireError(f"{len(content.planes)} planes are described, {len(parts)} came")
        for plane, part in zip(content.planes, parts, strict=True):
            size = tensor_layout.nbytes_of(plane)
            if plane.coding == "raw" and len(part) != size:
                raise WireError(f"plane {plane.name} has {len(part)} bytes, described are {size}")
            if plane.coding == "jpeg" and (not _is_picture(plane) or _jpeg_shape(part.buffer) != plane.shape):
                raise WireError(f"plane {plane.name} is no JPEG of {list(plane.shape)}")

    def open(self, message: messages.FrameMessage, parts: Sequence[Any]) -> Any:
        """The frame. Raises WireError for planes that cannot be decoded."""
        assert message.content is not None
        decoded = [_decoded(plane, part) for plane, part in zip(message.content.planes, parts, strict=True)]
        return tensor_layout.unpack(message, decoded)

    def done(self, message: messages.FrameMessage) -> None:
        """Nothing to check: the frame's tensors own their memory."""

    def close(self) -> None:
        """Nothing to release: frames own their memory."""


def parse_coding(text: str) -> tuple[messages.Coding, int]:
    """Name and JPEG quality of a coding: ("jpeg", 90) for "jpeg:90", quality 0 for the others. Raises ConfigError."""
    if text == "raw":
        return "raw", 0
    if text == "lz4":
        return "lz4", 0
    name, _, quality = text.partition(":")
    if name == "jpeg" and quality.isdigit() and 1 <= int(quality) <= 100:
        return "jpeg", int(quality)
    raise ConfigError(f"coding of a link: expected raw, lz4 or jpeg:QUALITY with 1 to 100, got {text!r}")


def _flat(tensor: Tensor, plane: messages.Plane) -> Tensor:
    """The bytes of a plane on the host, in the order in which its elements lie in memory: uint8 [bytes]."""
    tensor = tensor.cpu()
    if plane.order:
        tensor = tensor.permute(plane.order)
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _decoded(plane: messages.Plane, part: Any) -> Tensor:
    dtype, size = tensor_layout.dtype_of(plane), tensor_layout.nbytes_of(plane)
    if not size:
        return torch.empty(plane.shape, dtype=dtype)
    if plane.coding == "jpeg":
        bgr = cv2.imdecode(np.frombuffer(part.buffer, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None or bgr.shape != plane.shape:
            raise WireError(f"plane {plane.name} cannot be decoded as JPEG")
        return torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    if plane.coding == "lz4":
        try:
            data = bytearray(lz4.block.decompress(part.buffer, uncompressed_size=size))
        except lz4.block.LZ4BlockError as error:
            raise WireError(f"plane {plane.name} cannot be decoded as lz4: {error}") from None
        if len(data) != size:
            raise WireError(f"plane {plane.name} has {len(data)} bytes, described are {size}")
        return tensor_layout.laid_out(torch.frombuffer(data, dtype=dtype), plane)
    return tensor_layout.laid_out(_tensor_on(part.buffer, dtype), plane)


def _tensor_on(buffer: memoryview, dtype: torch.dtype) -> Tensor:
    """A tensor over a buffer, or over a copy where the buffer is not aligned: ZeroMQ does not align small messages."""
    if not np.frombuffer(buffer, np.uint8).__array_interface__["data"][0] % dtype.itemsize:
        return torch.frombuffer(buffer, dtype=dtype)
    return torch.frombuffer(bytearray(buffer), dtype=dtype)


def _is_picture(plane: messages.Plane) -> bool:
    return plane.dtype == "uint8" and len(plane.shape) == 3 and plane.shape[2] == 3 and not plane.order


def _as(plane: messages.Plane, coding: messages.Coding) -> messages.Plane:
    return messages.Plane(plane.name, plane.dtype, plane.shape, plane.offset, plane.order, coding)


def _jpeg_shape(data: memoryview) -> tuple[int, ...] | None:
    """(h, w, 3) from a JPEG's frame header, None without one. Read before decoding, since decoding allocates that
    much."""
    at = 2
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            h, w = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            return h, w, 3
        at += 2 + length
    return None
