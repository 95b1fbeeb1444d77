"""A card that is not there: the package's own code on a simulated one, with every read and write checked for order.

Values are computed at once on the CPU, so pictures are those of the card. What a stream, an event or a graph orders is
followed by vector clocks (`order.py`): a race is found however the threads happened to run. Memory is given out as by
torch's allocator, worst case first (`arena.py`).

    with card() as sim:
        ...                      # device="cuda:0"
    assert not sim.races

What is not simulated: time, several cards, captures of several streams.
"""

import contextlib
import os
import sys
import tempfile
import threading
from collections import Counter
from unittest import mock

from support.card.arena import Arena
from support.card.cuda import DONE, Cuda, Runtime, Stream, as_tensor
from support.card.hosts import ordered
from support.card.kernels import Driver, Nvrtc
from support.card.networks import onnxruntime_on, tensorrt_on
from support.card.order import Order, host, site
from support.card.tensors import Booking, CardTensor, Placing
from warpfuse.engine import device
from warpfuse.engine.tensorrt_module import complaints
from warpfuse.graph.links import cuda_ipc
from warpfuse.stages.cuda import kernels as own_kernels

DEFAULT = 0


class Card:
    """The simulated card: its memory, streams and clocks, and a count of what was done on it.

    races      found so far
    kernels    number of launches by (profiler span, kernel name)
    launches   number of launches: a replayed graph is one
    waits      waits of the host for the card: (stream or event, module, function)
    providers  execution providers that sessions of ONNX Runtime were opened with
    graphs, captured, freed  numbers of graphs replayed, captures begun, and allocations of cudaMalloc freed
    without    places (`sites.py`) whose operation is left out, for mutations
    skipped    number of times each of them was left out
    """

    def __init__(self, capability=(8, 9)):
        self.order = Order()
        self.arena = Arena(self.order)
        self.cuda, self.runtime = Cuda(self), Runtime(self)
        self.driver, self.nvrtc = Driver(self, DONE), Nvrtc(DONE)
        self.Tensor = type("CardTensor", (CardTensor,), {"card": self})
        self.capability = capability
        self.local = threading.local()
        self.default = Stream(self, DEFAULT)
        self.captures = {}
        self.kernels = Counter()
        self.waits, self.providers = [], []
        self.graphs = self.captured = self.freed = self.launches = 0
        self.rtx_captures = True  # whether contexts of TensorRT-RTX can be captured
        self.without = set()
        self.skipped = Counter()

    @property
    def races(self):
        return self.order.races

    def current(self):
        return getattr(self.local, "stream", None) or self.default

    def kernel(self, name, reads, writes, run, ran=False, kept=None, stream=None):
        """Launch a kernel on a stream; while the stream captures, add it to the graph instead.

        reads, writes  spans of memory
        run            computes the values, at once
        ran            the values were computed already
        kept           what must live as long as the graph
        """
        key = (stream or self.current()).key
        graph = self.captures.get(key)
        if graph is not None:
            graph.add(name, reads, writes, run, kept)
            return
        if not ran:
            self.local.running = True  # what it takes to compute it is no work of its own
            try:
                run()
            finally:
                self.local.running = False
        self.kernels[getattr(self.local, "span", ""), name] += 1
        self.launches += not getattr(self.local, "replaying", False)
        self.order.work(key, reads, writes)

    @contextlib.contextmanager
    def replaying(self):
        """Count the kernels inside the block as one launch: the replay of a graph."""
        self.local.replaying = True
        try:
            yield
        finally:
            self.local.replaying = False

    def host_waits(self, key):
        """Have this thread wait for a stream, as cudaStreamSynchronize does."""
        self.not_capturing(key)
        self.waits.append(("stream", *site()[:2]))
        self.order.join(host(), self.order.clock(key))

    def not_capturing(self, key):
        if key in self.captures:
            self.captures[key].broken = True
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing (900)")

    def record_stream(self, x, stream):
        if self.doing("record_stream"):
            block = self.arena.block_at(x.untyped_storage().data_ptr())
            if block is not None:
                block.told.add(stream.key)

    def memory_at(self, interface):
        return as_tensor(self, interface)

    def doing(self, operation):
        """Whether the calling place may do an operation; False at a place in `without`."""
        module, function, line = site()
        for one in self.without:
            if (one.operation, one.module, one.function) == (operation, module, function) and line in one.lines:
                self.skipped[one] += 1
                return False
        return True

    @contextlib.contextmanager
    def modes(self):
        """Have torch in this thread accept the simulated card as a device."""
        with Placing(self), Booking(self):
            yield


@contextlib.contextmanager
def card(**keys):
    """Inside the block there is one card, "cuda:0". The plans built for it are kept no longer."""
    with tempfile.TemporaryDirectory() as plans, mock.patch.dict(os.environ, WARPFUSE_CACHE=plans):
        yield from _card(Card(**keys))


def _card(sim):
    before = device.cuda, device.runtime, device.driver, device.nvrtc
    device.cuda, device.runtime = sim.cuda, lambda: sim.runtime
    device.driver, device.nvrtc = lambda: sim.driver, lambda: sim.nvrtc
    modules = {
        "onnxruntime": onnxruntime_on(sim),
        "tensorrt": tensorrt_on(sim),
        "tensorrt_rtx_bindings": tensorrt_on(sim, ahead=True),
    }
    hidden = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    complaints.cache_clear()  # of the modules that are hidden now
    try:
        with ordered(sim), sim.modes():
            yield sim
    finally:
        device.cuda, device.runtime, device.driver, device.nvrtc = before
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        # What this process remembers of a card that is gone.
        complaints.cache_clear()
        device._idle.clear(), cuda_ipc._closed.clear(), cuda_ipc._let_go.clear()
        own_kernels.forget()
        sim.arena.close()
