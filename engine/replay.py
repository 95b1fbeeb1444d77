"""A network with addresses that never move, captured as CUDA graphs and replayed: shared by the backends of GPUs."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from warpfuse.engine.cuda_streams import cuda_stream

SLOTS = 2
WARM_UP = 3


class Replay:
    """One CUDA graph for each of two output slots, launched on whatever stream is current when it is called.

    inputs   static tensors the network reads; each call copies into them
    outputs  for each slot the static tensors the network writes
    launch   launch(slot) issues the network to the current stream, from `inputs` into `outputs[slot]`; it is called a
             few times (lazy initialisation, tuning) and then captured once a slot

    The inputs are one set: copy and replay follow each other on one stream, so always call it on the same one. A reader
    on another stream reads an output after an event (`wrote`, `reads`), and before the next-but-one call.
    """

    def __init__(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[Mapping[str, Tensor]], launch: Callable[[int], None]
    ) -> None:
        self._inputs, self._outputs = inputs, outputs
        self._next = 0
        device = next(iter(inputs.values())).device
        stream = cuda_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.device(device), torch.cuda.stream(stream):
            for turn in range(WARM_UP * SLOTS):
                launch(turn % SLOTS)
            stream.synchronize()
            self._graphs = [self._capture(stream, launch, slot) for slot in range(SLOTS)]
        torch.cuda.current_stream(device).wait_stream(stream)

    def __call__(self, fed: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copy in, replay, hand out the slot."""
        for name, tensor in self._inputs.items():
            tensor.copy_(fed[name], non_blocking=True)
        slot, self._next = self._next, (self._next + 1) % SLOTS
        self._graphs[slot].replay()
        return self._outputs[slot]

    @staticmethod
    def _capture(stream: torch.cuda.Stream, launch: Callable[[int], None], slot: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other stages go on allocating and launching in their threads while this one captures
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            launch(slot)
        return graph
