"""Messages of a link, as bytes. No socket is touched here.

A message is two parts: a fixed 12-byte head, so that a router or a recorder needs no decoding, and a typed body.

    head    magic "WF" | u8 version | u8 type | u32 epoch | u32 low word of seq        little-endian
    body    MessagePack array of the type's fields, decoded with validation; never pickle

The receiver opens with HELLO and grants credits; WELCOME answers with the slot table. The sender sends a FRAME only
against a credit; CREDIT grants the next one and releases the slot in one message. EOS ends a link after its last frame,
ERROR ends it because something upstream failed, BYE tells the sender that its reader is gone and whether it failed.
"""

import struct
from typing import Annotated, Any

import msgspec

from warpfuse.graph.errors import WireError

VERSION = 1
MAX_BODY = 4096

_HEAD = struct.Struct("<2sBBII")
_MAGIC = b"WF"

Count = Annotated[int, msgspec.Meta(ge=0, le=4096)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    pass


class Hello(_Message, frozen=True):
    """Receiver to sender, once: which link it reads and how many frames it takes before it returns one."""

    link: Annotated[str, msgspec.Meta(max_length=200)]
    credits: Count


class Welcome(_Message, frozen=True):
    """Sender to receiver, once: how many slots the link has."""

    slots: Count


class FrameMessage(_Message, frozen=True):
    """Sender to receiver: frame `seq` lies in `slot`, which has been filled `generation` times."""

    seq: Seq
    slot: Count
    generation: Seq


class Credit(_Message, frozen=True):
    """Receiver to sender: send `grant` more; the slot of this generation is free again (slot -1: none)."""

    grant: Count
    slot: Annotated[int, msgspec.Meta(ge=-1, le=4096)]
    generation: Seq


class Eos(_Message, frozen=True):
    """Sender to receiver: no frame follows; `frames` were sent on this link."""

    frames: Seq


class Error(_Message, frozen=True):
    """Sender to receiver: `stage` failed, no frame follows and what was made is not complete."""

    stage: Annotated[str, msgspec.Meta(max_length=200)]


class Bye(_Message, frozen=True):
    """Receiver to sender: this reader takes nothing more; because `failed` (a stage) failed, or None at the end."""

    failed: Annotated[str, msgspec.Meta(max_length=200)] | None


Message = Hello | Welcome | FrameMessage | Credit | Eos | Error | Bye

_TYPES: dict[int, type[_Message]] = dict(enumerate((Hello, Welcome, FrameMessage, Credit, Eos, Error, Bye), start=1))
_NUMBERS = {kind: number for number, kind in _TYPES.items()}
_DECODERS: dict[int, msgspec.msgpack.Decoder[Any]] = {n: msgspec.msgpack.Decoder(kind) for n, kind in _TYPES.items()}
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Message, epoch: int) -> list[bytes]:
    """Head and body of a message."""
    seq = message.seq if isinstance(message, FrameMessage) else 0
    head = _HEAD.pack(_MAGIC, VERSION, _NUMBERS[type(message)], epoch, seq & 0xFFFFFFFF)
    return [head, _ENCODER.encode(message)]


def decode(parts: list[bytes], epoch: int) -> Message | None:
    """The message, or None for one of an earlier life of the link (another epoch), which is to be ignored.

    Raises WireError for anything else that is not a message of this version.
    """
    if len(parts) != 2:
        raise WireError(f"a message has 2 parts, got {len(parts)}")
    head, body = parts
    if len(head) != _HEAD.size:
        raise WireError(f"a head has {_HEAD.size} bytes, got {len(head)}")
    magic, version, number, its_epoch, seq_low = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise WireError(f"the head starts with {magic!r}, expected {_MAGIC!r}")
    if version != VERSION:
        raise WireError(f"the peer speaks version {version}, this is version {VERSION}. Run the same warpfuse on both")
    if number not in _TYPES:
        raise WireError(f"unknown message type {number}")
    if len(body) > MAX_BODY:
        raise WireError(f"a body has at most {MAX_BODY} bytes, got {len(body)}")
    if its_epoch != epoch:
        return None
    try:
        message: Message = _DECODERS[number].decode(body)
    except msgspec.MsgspecError as error:
        raise WireError(f"{_TYPES[number].__name__}: {error}") from None
    if isinstance(message, FrameMessage) and message.seq & 0xFFFFFFFF != seq_low:
        raise WireError(f"the head says seq {seq_low}, the body {message.seq}")
    return message
