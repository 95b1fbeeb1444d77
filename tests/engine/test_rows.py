"""Rows through a network of a fixed batch: as many calls as they need, and what one by one would give."""

import pytest
import torch

from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.rows import fixed_batch, run_rows


class Doubling:
    """y = 2 x over two slots, as engines have them; refuses another batch than its own."""

    backend, device = "test", "cpu"

    def __init__(self, batch):
        self.inputs = self.outputs = (TensorSpec("x", "float32", (batch, 3)),)
        self.calls, self.slots = 0, {}

    def __call__(self, inputs):
        self.inputs[0].check("doubling", inputs["x"])
        slot = self.slots.setdefault((self.calls % 2, len(inputs["x"])), torch.empty_like(inputs["x"]))
        self.calls += 1
        return {"y": slot.copy_(2 * inputs["x"])}

    def close(self):
        pass


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("batch, calls", [(None, lambda n: 1), (1, lambda n: n), (4, lambda n: -(-n // 4))])
def test_every_row_is_answered_in_its_place(rows, batch, calls):
    engine, x = Doubling(batch), torch.randn(rows, 3)
    assert torch.equal(run_rows(engine, {"x": x}, fixed_batch(engine))["y"], 2 * x)
    assert engine.calls == calls(rows)
