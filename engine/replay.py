"""Capture a network with fixed addresses as CUDA graphs and replay them. The GPU backends share this."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from warpfuse.engine import device as card

SLOTS = 2
WARM_UP = 3


class Replay:
    """One CUDA graph for each of two output slots. A call launches one on the current stream.

    inputs   static tensors the network reads; each call copies into them
    outputs  for each slot, the static tensors the network writes
    launch   launch(slot) issues the network to the current stream, from `inputs` into `outputs[slot]`. It is called a
             few times (lazy initialisation, tuning), then captured once for each slot

    capturable  whether the stream can capture the network; if not, each call issues the network again

    A call within a capture issues the network into the graph that is captured: a graph holds no other graphs.

    Always call it on the same stream, because all calls use the same `inputs`. A reader on another stream must wait for
    an event (`wrote`, `reads`), and read an output before the second call after its own.
    """

    def __init__(
        self,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[Mapping[str, Tensor]],
        launch: Callable[[int], None],
        capturable: Callable[[card.Stream], bool] = lambda stream: True,
    ) -> None:
        self._inputs, self._outputs, self._launch = inputs, outputs, launch
        self._next = 0
        device = next(iter(inputs.values())).device
        stream = card.new_stream(device)
        stream.wait_event(card.recorded(card.current(device)))
        with card.selected(device):
            with card.issuing_to(stream):
                for turn in range(WARM_UP * SLOTS):
                    launch(turn % SLOTS)
            stream.synchronize()  # the first replay may be on any stream
            self.capturable = capturable(stream)
            if not self.capturable:
                self._runs: list[Callable[[], object]] = [partial(launch, slot) for slot in range(SLOTS)]
                return
            first = card.captured(stream, partial(launch, 0))
            # They run in turn on one stream, so they may share working memory.
            graphs = [first, *(card.captured(stream, partial(launch, slot), first) for slot in range(1, SLOTS))]
            self._runs = [graph.replay for graph in graphs]

    def __call__(self, fed: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copy the inputs, replay the next slot's graph, and return the slot's outputs."""
        for name, tensor in self._inputs.items():
            tensor.copy_(fed[name], non_blocking=True)
        slot, self._next = self._next, (self._next + 1) % SLOTS
        if card.capturing():
            self._launch(slot)
        else:
            self._runs[slot]()
        return self._outputs[slot]
