"""Messages of a link, as bytes. No socket is touched here.

A message has two parts, and where the memory cannot be shared the planes of a frame behind them: a fixed 12-byte head,
so that a router or a recorder needs no decoding, and a typed body.

    head    magic "WF" | u8 version | u8 type | u32 epoch | u32 low word of seq        little-endian
    body    MessagePack array of the type's fields, decoded with validation; never pickle

The receiver opens with HELLO and grants credits; WELCOME answers with the slot table, and comes again when the table
has grown. The sender sends a FRAME only against a credit; CREDIT grants the next one and releases the slot in one
message. EOS ends a link after its last frame, ERROR ends it because something upstream failed, BYE tells the sender
that its reader is gone and whether it failed.
"""

import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from warpfuse.graph.errors import WireError
from warpfuse.graph.links.link_plan import Transport
from warpfuse.stages.interim import Interim

VERSION = 7
MAX_BODY = 65536  # a frame of a crossfade tells of its prompts

_HEAD = struct.Struct("<2sBBII")
_MAGIC = b"WF"

HEAD_BYTES = _HEAD.size

Count = Annotated[int, msgspec.Meta(ge=0, le=4096)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Name = Annotated[str, msgspec.Meta(max_length=64)]
LinkName = Annotated[str, msgspec.Meta(max_length=200)]
Dtype = Literal[
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"
]  # fmt: skip
Coding = Literal["raw", "lz4", "jpeg"]
Kind = Literal["raw", "nothing", "picture", "latent", "motion", "mask", "hints", "sound"]


class _Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    pass


class Hello(_Message, frozen=True):
    """Receiver to sender, once: the link it reads, how many frames it takes before it returns one, and how."""

    link: LinkName
    credits: Count
    transport: Transport = "local"


class Welcome(_Message, frozen=True):
    """Sender to receiver: the slot table frames lie in from now on. Any planes within `slot_bytes` fit a slot.

    table    its number; the one before is not filled again
    memory   where it lies, below the folder of this user's shared memory; "" where nothing is shared
    handles  of a card's memory and events, for cuda-ipc
    """

    slots: Count
    table: Count = 0
    slot_bytes: Size = 0
    memory: Annotated[str, msgspec.Meta(max_length=200)] = ""
    handles: Annotated[tuple[Annotated[bytes, msgspec.Meta(max_length=64)], ...], msgspec.Meta(max_length=48)] = ()


class Plane(_Message, frozen=True):
    """One array of a frame. offset: bytes from the start of its slot; order: its dimensions as they lie in memory,
    outermost first, () as they are counted."""

    name: Name
    dtype: Dtype
    shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=2**31)], ...], msgspec.Meta(max_length=8)]
    offset: Size = 0
    order: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=7)], ...], msgspec.Meta(max_length=8)] = ()
    coding: Coding = "raw"


class Content(_Message, frozen=True):
    """What lies in a slot: a `RawFrame` (one plane, "rgb"), a form of `Frame` or a `SoundPiece`, and the rest of its
    stamp.

    device  "cpu" or "cuda:N": where the sender had the tensors
    """

    kind: Kind
    pts_ns: Time
    arrived_ns: Time
    discontinuity: bool
    stale: bool
    settings: Seq
    interim: Interim | None
    hold: Literal["", "warp", "repeat"]
    device: Annotated[str, msgspec.Meta(max_length=16, pattern=r"^(cpu|cuda:[0-9]+)$")]
    planes: Annotated[tuple[Plane, ...], msgspec.Meta(max_length=16)]


class FrameMessage(_Message, frozen=True):
    """Sender to receiver: frame `seq` lies in `slot` of `table`, which has been filled `generation` times.

    content  None inside a process, where the value itself crosses by reference
    dropped  frames not sent since the one before, by reason
    sent_ns  the run's clock when the sender handed it over, 0: not stamped. Its hop lasts until the reader takes it
    """

    seq: Seq
    slot: Count
    generation: Seq
    table: Count = 0
    content: Content | None = None
    dropped: Annotated[tuple[tuple[Name, Seq], ...], msgspec.Meta(max_length=8)] = ()
    sent_ns: Seq = 0


class Credit(_Message, frozen=True):
    """Receiver to sender: send `grant` more; the slot of this generation is free again."""

    grant: Count
    slot: Count
    generation: Seq
    table: Count = 0


class Eos(_Message, frozen=True):
    """Sender to receiver: no frame follows; `frames` were sent on this link."""

    frames: Seq


class Error(_Message, frozen=True):
    """Sender to receiver: `stage` failed, no frame follows and what was made is not complete."""

    stage: LinkName


class Bye(_Message, frozen=True):
    """Receiver to sender: this reader takes nothing more; because `failed` (a stage) failed, or None at the end."""

    failed: LinkName | None


Message = Hello | Welcome | FrameMessage | Credit | Eos | Error | Bye

_TYPES: dict[int, type[_Message]] = dict(enumerate((Hello, Welcome, FrameMessage, Credit, Eos, Error, Bye), start=1))
_NUMBERS = {kind: number for number, kind in _TYPES.items()}
_DECODERS: dict[int, msgspec.msgpack.Decoder[Any]] = {n: msgspec.msgpack.Decoder(kind) for n, kind in _TYPES.items()}
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Message, epoch: int) -> list[bytes]:
    """Head and body of a message. Raises WireError for one whose body is too long to be accepted."""
    seq = message.seq if isinstance(message, FrameMessage) else 0
    head = _HEAD.pack(_MAGIC, VERSION, _NUMBERS[type(message)], epoch, seq & 0xFFFFFFFF)
    body = _ENCODER.encode(message)
    if len(body) > MAX_BODY:
        raise WireError(f"a {type(message).__name__} of {len(body)} bytes, a body has at most {MAX_BODY}")
    return [head, body]


def decode(parts: Sequence[bytes], epoch: int) -> Message | None:
    """The message of a head and a body, or None for one of another life of the link, which is to be ignored.

    Raises WireError for anything else that is not a message of this version.
    """
    if len(parts) != 2:
        raise WireError(f"a message has 2 parts, got {len(parts)}")
    head, body = parts
    if len(head) != HEAD_BYTES:
        raise WireError(f"a head has {HEAD_BYTES} bytes, got {len(head)}")
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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"{_TYPES[number].__name__}: {error}") from None
    if (message.seq & 0xFFFFFFFF if isinstance(message, FrameMessage) else 0) != seq_low:
        raise WireError(f"the head says seq {seq_low}, the body of {_TYPES[number].__name__} does not")
    return message
