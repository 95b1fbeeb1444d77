"""Messages of a link, and their encoding. No socket is used here.

A message has two parts, a fixed 12-byte head and a typed body. The inline transport adds the planes of a frame. A
router or a recorder can read the head without decoding the body.

    head    magic "WF" | u8 version | u8 type | u32 epoch | u32 low word of seq        little-endian
    body    MessagePack array of the type's fields, decoded with validation; never pickle

HELLO opens the link: the receiver grants its credits. WELCOME answers with the slot table, and is sent again when the
table is replaced. FRAME is sent only against a credit. CREDIT releases the slot and grants the next credit in one
message. EOS ends a link after its last frame. ERROR ends it because a stage upstream failed. BYE tells the sender
that its reader takes no more frames, and which stage failed if that is why.
"""

import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from warpfuse.graph.errors import WireError
from warpfuse.graph.links.link_plan import Transport
from warpfuse.stages.interim import Interim

VERSION = 8
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
    """Receiver to sender, once: the link's name, the receiver's credits and its transport."""

    link: LinkName
    credits: Count
    transport: Transport = "local"


class Welcome(_Message, frozen=True):
    """Sender to receiver: the slot table that holds all frames from now on. A slot holds up to `slot_bytes` bytes.

    table    number of the table; older tables are not filled again
    memory   path of the table in shared memory, relative to the user's folder there; "" where no memory is shared
    handles  of the memory and the events on a card, for cuda-ipc
    """

    slots: Count
    table: Count = 0
    slot_bytes: Size = 0
    memory: Annotated[str, msgspec.Meta(max_length=200)] = ""
    handles: Annotated[tuple[Annotated[bytes, msgspec.Meta(max_length=64)], ...], msgspec.Meta(max_length=48)] = ()


class Plane(_Message, frozen=True):
    """One array of a frame.

    offset  bytes from the start of its slot
    order   its dimensions as they lie in memory, outermost first; () for a contiguous array
    """

    name: Name
    dtype: Dtype
    shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=2**31)], ...], msgspec.Meta(max_length=8)]
    offset: Size = 0
    order: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=7)], ...], msgspec.Meta(max_length=8)] = ()
    coding: Coding = "raw"


class Content(_Message, frozen=True):
    """Description of a slot's content: a `RawFrame` (one plane, "rgb"), a subclass of `Frame` or a `SoundPiece`, with
    the fields of its stamp other than `seq`.

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
    """Sender to receiver: frame `seq` lies in `slot` of `table`. The slot has been filled `generation` times.

    content  None inside a process, where the frame is passed by reference
    dropped  frames dropped since the message before, by reason
    sent_ns  when the sender handed the frame over, by the run's clock; 0: unknown. A hop lasts from then until the
             reader takes the frame
    """

    seq: Seq
    slot: Count
    generation: Seq
    table: Count = 0
    content: Content | None = None
    dropped: Annotated[tuple[tuple[Name, Seq], ...], msgspec.Meta(max_length=8)] = ()
    sent_ns: Seq = 0


class Credit(_Message, frozen=True):
    """Receiver to sender: `grant` more frames may be sent, and the slot of this generation is free again."""

    grant: Count
    slot: Count
    generation: Seq
    table: Count = 0


class Eos(_Message, frozen=True):
    """Sender to receiver: no frame follows, and `frames` were sent on this link."""

    frames: Seq


class Error(_Message, frozen=True):
    """Sender to receiver: `stage` failed, so no frame follows and the output is incomplete."""

    stage: LinkName


class Bye(_Message, frozen=True):
    """Receiver to sender: this reader takes no more frames. failed: the stage that failed; None at the normal end."""

    failed: LinkName | None


Message = Hello | Welcome | FrameMessage | Credit | Eos | Error | Bye

_TYPES: dict[int, type[_Message]] = dict(enumerate((Hello, Welcome, FrameMessage, Credit, Eos, Error, Bye), start=1))
_NUMBERS = {kind: number for number, kind in _TYPES.items()}
_DECODERS: dict[int, msgspec.msgpack.Decoder[Any]] = {n: msgspec.msgpack.Decoder(kind) for n, kind in _TYPES.items()}
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Message, epoch: int) -> list[bytes]:
    """Head and body of a message. Raises WireError for a body of more than MAX_BODY bytes."""
    seq = message.seq if isinstance(message, FrameMessage) else 0
    head = _HEAD.pack(_MAGIC, VERSION, _NUMBERS[type(message)], epoch, seq & 0xFFFFFFFF)
    body = _ENCODER.encode(message)
    if len(body) > MAX_BODY:
        raise WireError(f"a {type(message).__name__} of {len(body)} bytes, a body has at most {MAX_BODY}")
    return [head, body]


def decode(parts: Sequence[Any], epoch: int) -> Message | None:
    """The message in a head and a body; None for a message of another epoch, which the caller ignores.

    parts  bytes, or buffers that hold them

    Raises WireError for bytes that are no message of this version.
    """
    if len(parts) != 2:
        raise WireError(f"a message has 2 parts, got {len(parts)}")
    head, body = parts
    if len(head) != HEAD_BYTES:
        raise WireError(f"a head has {HEAD_BYTES} bytes, got {len(head)}")
    magic, version, number, head_epoch, seq_low = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise WireError(f"the head starts with {magic!r}, expected {_MAGIC!r}")
    if version != VERSION:
        raise WireError(f"the peer speaks version {version}, this is version {VERSION}. Run the same warpfuse on both")
    if number not in _TYPES:
        raise WireError(f"unknown message type {number}")
    if len(body) > MAX_BODY:
        raise WireError(f"a body has at most {MAX_BODY} bytes, got {len(body)}")
    if head_epoch != epoch:
        return None
    try:
        message: Message = _DECODERS[number].decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"{_TYPES[number].__name__}: {error}") from None
    if (message.seq & 0xFFFFFFFF if isinstance(message, FrameMessage) else 0) != seq_low:
        raise WireError(f"the head says seq {seq_low}, the body of {_TYPES[number].__name__} does not")
    return message
