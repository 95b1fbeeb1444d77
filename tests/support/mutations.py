"""Damaged messages, as from a broken or hostile peer."""

import struct

_HUGE = [b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
"""MessagePack headers that promise four thousand million elements or bytes."""


def mutated(rng, parts):
    """One to three changes to the parts of a message, each drawn from `rng`."""
    parts = [bytearray(part) for part in parts]
    for _ in range(rng.randint(1, 3)):
        _CHANGES[rng.randrange(len(_CHANGES))](rng, parts)
    return [bytes(part) for part in parts]


def _flip(rng, parts):
    part = rng.choice(parts) if parts else bytearray()
    if part:
        part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)


def _byte(rng, parts):
    part = rng.choice(parts) if parts else bytearray()
    if part:
        part[rng.randrange(len(part))] = rng.randrange(256)


def _cut(rng, parts):
    part = rng.choice(parts) if parts else bytearray()
    del part[rng.randrange(len(part) + 1) :]


def _grow(rng, parts):
    if parts:
        rng.choice(parts).extend(rng.randbytes(rng.choice([1, 7, 64, 5000])))


def _insert(rng, parts):
    if parts:
        part = rng.choice(parts)
        at = rng.randrange(len(part) + 1)
        part[at:at] = rng.choice([*_HUGE, rng.randbytes(4)])


def _huge(rng, parts):
    if len(parts) > 1 and parts[1]:
        at = rng.randrange(len(parts[1]))
        parts[1][at : at + 1] = rng.choice(_HUGE)


def _drop(rng, parts):
    if parts:
        parts.pop(rng.randrange(len(parts)))


def _double(rng, parts):
    if parts:
        parts.append(bytearray(rng.choice(parts)))


def _epoch(rng, parts):
    if parts and len(parts[0]) >= 8:
        struct.pack_into("<I", parts[0], 4, rng.choice([0, 1, 8, 10, 2**32 - 1, rng.randrange(2**32)]))


def _version(rng, parts):
    if parts and len(parts[0]) >= 3:
        parts[0][2] = rng.randrange(256)


def _kind(rng, parts):
    if parts and len(parts[0]) >= 4:
        parts[0][3] = rng.randrange(12)


def _number(rng, parts):
    if len(parts) > 1 and parts[1]:
        at = rng.randrange(len(parts[1]))
        value = rng.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1])
        parts[1][at : at + 1] = b"\xcf" + struct.pack(">Q", value)


_CHANGES = [
    _flip, _byte, _cut, _grow, _insert, _huge, _drop, _double, _epoch, _version, _kind, _number,
]  # fmt: skip
