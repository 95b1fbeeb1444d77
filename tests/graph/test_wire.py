"""Every message survives the wire; nothing that is not one is obeyed."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.graph import wire
from warpfuse.graph.errors import WireError

MESSAGES = [
    wire.Hello("a->b.frame", 2),
    wire.Welcome(3),
    wire.FrameMessage(2**40 + 7, 1, 12),
    wire.Credit(1, 2, 5),
    wire.Credit(1, -1, 0),
    wire.Eos(1000),
    wire.Error("predict"),
    wire.Bye(None),
    wire.Bye("predict"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_was(message):
    assert wire.decode(wire.encode(message, epoch=9), epoch=9) == message


def test_the_head_has_twelve_bytes_and_tells_the_type_without_decoding():
    head, _ = wire.encode(wire.FrameMessage(2**32 + 5, 0, 1), epoch=3)
    assert struct.unpack("<2sBBII", head) == (b"WF", wire.VERSION, 3, 3, 5)


def test_another_epoch_is_ignored():
    assert wire.decode(wire.encode(wire.Eos(1), epoch=1), epoch=2) is None


def test_an_older_version_is_refused_by_name():
    head, body = wire.encode(wire.Bye(None), epoch=0)
    with pytest.raises(WireError, match="version 0"):
        wire.decode([head[:2] + b"\0" + head[3:], body], epoch=0)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x93\x01\x02", b"\x94\x01\x02\x03\x04", b"\x93\x01\xa1x\x01", b"\x93\xff\x00\x00", b"\x80", b"\xc1"],
    ids=["empty", "short", "long", "text for a number", "negative seq", "a map", "no MessagePack"],
)
def test_a_body_that_does_not_fit_is_refused(body):
    head, _ = wire.encode(wire.FrameMessage(0, 0, 0), epoch=0)
    with pytest.raises(WireError):
        wire.decode([head, body], epoch=0)


def test_a_head_and_a_body_that_disagree_are_refused():
    head, _ = wire.encode(wire.FrameMessage(1, 0, 0), epoch=0)
    _, body = wire.encode(wire.FrameMessage(2, 0, 0), epoch=0)
    with pytest.raises(WireError, match="seq"):
        wire.decode([head, body], epoch=0)


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_noise_is_refused(parts):
    with pytest.raises(WireError):
        wire.decode(parts, epoch=0)


@given(number=st.integers(0, 255), body=st.binary(max_size=200))
def test_noise_behind_a_good_head_is_a_message_or_refused(number, body):
    head = struct.pack("<2sBBII", b"WF", wire.VERSION, number, 0, 0)
    try:
        message = wire.decode([head, body], epoch=0)
    except WireError:
        return
    assert wire.decode(wire.encode(message, epoch=0), epoch=0) == message
