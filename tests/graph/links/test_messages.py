"""Every message survives the wire; nothing that is not one is obeyed."""

import random
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.mutations import mutated

from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages
from warpfuse.stages.interim import Interim, PromptShare

PLANE = messages.Plane("rgb", "float32", (1, 3, 64, 64), 0)
INTERIM = Interim((("strength", 0.5),), (PromptShare(0.25, "ink", "", (("paint", 0.5),)), PromptShare(0.75, "oil")))
CONTENT = messages.Content(
    "motion", 40_000_000, -5, True, True, 3, INTERIM, "warp", "cuda:0",
    (PLANE, messages.Plane("trust", "bfloat16", (1, 1, 8, 8), 49152, (0, 2, 3, 1), "lz4")),
)  # fmt: skip
MESSAGES = [
    messages.Hello("a->b.frame", 2, "shm"),
    messages.Welcome(3),
    messages.Welcome(4, 2, 1 << 20, "run-1-ab/a_b.1.2", (b"\0" * 64,) * 9),
    messages.FrameMessage(2**40 + 7, 1, 12),
    messages.FrameMessage(7, 1, 12, 2, CONTENT, (("late", 3),), 2**62),
    messages.Credit(1, 2, 5),
    messages.Credit(1, 2, 5, 3),
    messages.Eos(1000),
    messages.Error("predict"),
    messages.Bye(None),
    messages.Bye("predict"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_was(message):
    assert messages.decode(messages.encode(message, epoch=9), epoch=9) == message


def test_the_head_has_twelve_bytes_and_tells_the_type_without_decoding():
    head, _ = messages.encode(messages.FrameMessage(2**32 + 5, 0, 1), epoch=3)
    assert struct.unpack("<2sBBII", head) == (b"WF", messages.VERSION, 3, 3, 5)


def test_another_epoch_is_ignored():
    assert messages.decode(messages.encode(messages.Eos(1), epoch=1), epoch=2) is None


def test_an_older_version_is_refused_by_name():
    head, body = messages.encode(messages.Bye(None), epoch=0)
    with pytest.raises(WireError, match=f"version 1, this is version {messages.VERSION}"):
        messages.decode([head[:2] + b"\1" + head[3:], body], epoch=0)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x93\x01\x02", b"\x99\x01\x02\x03\x04\xc0\x90\x90\x00\x00", b"\x93\x01\xa1x\x01", b"\x93\xff\x00\x00",
     b"\x80", b"\xc1"],
    ids=["empty", "short", "long", "text for a number", "negative seq", "a map", "no MessagePack"],
)  # fmt: skip
def test_a_body_that_does_not_fit_is_refused(body):
    head, _ = messages.encode(messages.FrameMessage(0, 0, 0), epoch=0)
    with pytest.raises(WireError):
        messages.decode([head, body], epoch=0)


@pytest.mark.parametrize(
    "change",
    [{"dtype": "object"}, {"shape": (-1, 3)}, {"shape": (1,) * 9}, {"offset": 2**50}, {"order": (8,)},
     {"name": "x" * 65}, {"coding": "pickle"}],
    ids=str,
)  # fmt: skip
def test_a_plane_that_cannot_be_one_is_refused(change):
    plane = msgspec.structs.replace(PLANE, **change)
    message = messages.FrameMessage(0, 0, 1, 1, msgspec.structs.replace(CONTENT, planes=(plane,)))
    with pytest.raises(WireError):
        messages.decode(messages.encode(message, epoch=0), epoch=0)


def test_what_a_reader_would_refuse_is_not_sent():
    content = msgspec.structs.replace(CONTENT, planes=(PLANE,) * 4000)
    with pytest.raises(WireError, match="at most 65536"):
        messages.encode(messages.FrameMessage(0, 0, 1, 1, content), epoch=0)


def test_a_head_and_a_body_that_disagree_are_refused():
    head, _ = messages.encode(messages.FrameMessage(1, 0, 0), epoch=0)
    _, body = messages.encode(messages.FrameMessage(2, 0, 0), epoch=0)
    with pytest.raises(WireError, match="seq"):
        messages.decode([head, body], epoch=0)


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_noise_is_refused(parts):
    with pytest.raises(WireError):
        messages.decode(parts, epoch=0)


@given(number=st.integers(0, 255), body=st.binary(max_size=200))
def test_noise_behind_a_good_head_is_a_message_or_refused(number, body):
    head = struct.pack("<2sBBII", b"WF", messages.VERSION, number, 0, 0)
    try:
        message = messages.decode([head, body], epoch=0)
    except WireError:
        return
    assert messages.decode(messages.encode(message, epoch=0), epoch=0) == message


def test_a_hundred_thousand_damaged_messages_are_refused_ignored_or_messages():
    """Damaged ones of every kind: bits, lengths, cuts, parts, epochs, versions. What decodes is a message again."""
    rng = random.Random(2026)
    whole = [messages.encode(message, epoch=9) for message in MESSAGES]
    refused = ignored = obeyed = 0
    for _ in range(100_000):
        parts = mutated(rng, rng.choice(whole))
        try:
            message = messages.decode(parts, epoch=9)
        except WireError:
            refused += 1
            continue
        if message is None:
            ignored += 1
        else:
            obeyed += 1
            assert messages.decode(messages.encode(message, epoch=9), epoch=9) == message
    assert refused + ignored + obeyed == 100_000
    assert refused > 50_000
    assert ignored > 1_000
