"""A network with addresses that never move, captured as CUDA graphs and replayed: shared by the backends of GPUs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from warpfuse.engine import device as card

SLOTS = 2
WARM_UP = 3


class Replay:
    """One CUDA graph for each of two output slots, launched on whatever stream is current when it is called.

    inputs   static tensors the network reads; each call copies into them
    outputs  for each slot the static tensors the network writes
    launch   launch(slot) issues the network to the current stream, from `inputs` into `outputs[slot]`; it is called a
             few times (lazy initialisation, tuning) and then captured once a slot

    capturable  whether a stream can capture it; where not, each call issues the network anew

    The inputs are one set: copy and replay follow each other on one stream, so always call it on the same one. A reader
    on another stream reads an output after an event (`wrote`, `reads`), and before the next-but-one call.
    """

    def __init__(
        self,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[Mapping[str, Tensor]],
        launch: Callable[[int], None],
        capturable: Callable[[card.Stream], bool] = lambda stream: True,
    ) -> None:
        self._inputs, self._outputs = inputs, outputs
        self._next = 0
        device = next(iter(inputs.values())).device
        stream = card.new_stream(device)
        stream.wait_event(card.recorded(card.current(device)))
        with card.selected(device):
            with card.issuing_to(stream):
                for turn in range(WARM_UP * SLOTS):
                    launch(turn % SLOTS)
            stream.synchronize()  # the first replay may be on any stream
            if not capturable(stream):
                self._runs: list[Callable[[], object]] = [partial(launch, slot) for slot in range(SLOTS)]
                return
            first = card.captured(stream, partial(launch, 0))
            # In turn on one stream: they may share what they need in between.
            graphs = [first, *(card.captured(stream, partial(launch, slot), first) for slot in range(1, SLOTS))]
            self._runs = [graph.replay for graph in graphs]

    def __call__(self, fed: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copy in, replay, hand out the slot."""
        for name, tensor in self._inputs.items():
            tensor.copy_(fed[name], non_blocking=True)
        slot, self._next = self._next, (self._next + 1) % SLOTS
        self._runs[slot]()
        return self._outputs[slot]
