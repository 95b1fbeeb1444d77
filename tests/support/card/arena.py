"""Memory of the simulated card and pinned memory of the host, given out as torch's allocators do.

A block that is let go goes to the next who asks for one of its size on the stream it was made on, the last one first:
so memory that somebody still reads is written over as early as can be. The arena is mapped twice, as memory that two
processes share is: at one address for its owner, at another for who opened it.
"""

import bisect
import ctypes
import mmap
import os
import weakref

import torch

from support.card.order import Span, host

_BYTES = 1 << 31  # of addresses; what is not touched takes no memory
_SMALLEST = 512


class Block:
    """A block of memory.

    at, nbytes  offset in the arena and size, bytes
    kind        "device" or "pinned"
    home        the stream on which it was allocated
    told        streams named by record_stream
    """

    def __init__(self, at, nbytes, kind, home):
        self.at, self.nbytes, self.kind, self.home = at, nbytes, kind, home
        self.told = set()


class Arena:
    """The memory of the card, with an allocator that reuses freed blocks at once. Thread-safe."""

    def __init__(self, order):
        self._order = order
        self._file = os.memfd_create("card")
        os.ftruncate(self._file, _BYTES)
        self._maps = [mmap.mmap(self._file, _BYTES) for _ in range(2)]
        self._bases = [ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in self._maps]
        self._blocks = {}
        self._starts = []
        self._free = {}
        self._left = {}
        self._end = 0

    def close(self):
        # The maps stay as long as a tensor lies in them; the file goes with them.
        os.close(self._file)

    def take(self, nbytes, kind, home, whole=1):
        """Allocate a block of at least `nbytes` bytes, at a multiple of `whole` bytes."""
        with self._order.lock:
            size = max(_SMALLEST, 1 << max(0, nbytes - 1).bit_length())
            idle = self._free.setdefault((kind, home, size), [])
            if idle and whole == 1:
                at = idle.pop()
                self._order.join(host(), self._left.pop(at))
            else:
                at = -(-self._end // whole) * whole
                self._end = at + size
                if self._end > _BYTES:
                    raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
                bisect.insort(self._starts, at)
            block = self._blocks[at] = Block(at, size, kind, home)
            return block

    def let_go(self, block):
        """Free a block."""
        with self._order.lock:
            # The allocator gives a block out again when the streams it was told of are past it. Of others it knows
            # nothing. Pinned memory it watches by itself.
            self._order.forget(block.at, None if block.kind == "pinned" else block.told)
            block.told = set()
            self._free[block.kind, block.home, block.nbytes].append(block.at)
            self._left[block.at] = self._order.clock(host())  # whoever gets it comes after what this thread waited for

    def raw(self, nbytes, kind, home):
        """A new block as a uint8 tensor [nbytes]. The block is freed with the last view of the tensor."""
        block = self.take(nbytes, kind, home)
        buffer = (ctypes.c_uint8 * max(1, nbytes)).from_address(self._bases[0] + block.at)
        weakref.finalize(buffer, self.let_go, block)
        return torch.frombuffer(buffer, dtype=torch.uint8)

    def like(self, x, kind, home, filled=True):
        """A tensor like x, with its strides, in a new block. filled: with the values of x."""
        storage = x.untyped_storage()
        raw = self.raw(storage.nbytes(), kind, home)
        if filled and storage.nbytes():
            ctypes.memmove(raw.data_ptr(), storage.data_ptr(), storage.nbytes())
        count = storage.nbytes() // x.element_size()
        flat = raw[: count * x.element_size()].view(x.dtype) if count else raw[:0].view(x.dtype)
        return flat.as_strided(x.shape, x.stride(), x.storage_offset())

    def address(self, block, mapping=0):
        return self._bases[mapping] + block.at

    def block_at(self, address):
        """The block that an address lies in, None for memory of the host."""
        for base in self._bases:
            if base <= address < base + _BYTES:
                at = address - base
                return self._blocks[self._starts[bisect.bisect_right(self._starts, at) - 1]]
        return None

    def span(self, address, nbytes):
        block = self.block_at(address)
        if block is None or not nbytes:
            return None
        begin = (
            address - self._bases[0]
            if address - self._bases[0] < _BYTES and address >= self._bases[0]
            else address - self._bases[1]
        ) - block.at
        return Span(block.at, begin, begin + nbytes)

    def span_of(self, x):
        """The span of a tensor's bytes; None for a tensor of the host, or without elements."""
        if not x.numel():
            return None
        reach = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
        return self.span(x.data_ptr(), reach * x.element_size())

    def kind_of(self, x):
        """The kind of a tensor's memory: "device", "pinned", or None for ordinary memory of the host."""
        address = x.untyped_storage().data_ptr()
        block = self.block_at(address) if address else None
        return None if block is None else block.kind
