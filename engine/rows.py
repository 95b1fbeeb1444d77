"""Run any number of rows through a network, in as few calls as its batch size allows."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine


def fixed_batch(engine: Engine) -> int | None:
    """The number of rows that every call must have; None for any number. Rows are axis 0 of every input."""
    return engine.inputs[0].shape[0]


def joined(feeds: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """One feed with the rows of several, in order. A single feed is returned as it is."""
    return feeds[0] if len(feeds) == 1 else {name: torch.cat([feed[name] for feed in feeds]) for name in feeds[0]}


def run_rows(engine: Engine, feed: Mapping[str, Tensor], batch: int | None) -> Mapping[str, Tensor]:
    """The network's outputs for every row of `feed`: the engine's memory, or a copy if it took several calls.

    batch  rows of a call (`fixed_batch`). The last call is filled up by repeating its first row
    """
    rows = next(iter(feed.values())).shape[0]
    if batch is None or rows == batch:
        return engine(feed)
    if rows < batch:
        filled = {name: torch.cat([x, x[:1].expand(batch - rows, *x.shape[1:])]) for name, x in feed.items()}
        return {name: x[:rows] for name, x in engine(filled).items()}
    portions = []
    for start in range(0, rows, batch):
        portion = run_rows(engine, {name: x[start : start + batch] for name, x in feed.items()}, batch)
        # the engine has two output slots: a third call would overwrite the first portion
        portions.append({name: out.clone() for name, out in portion.items()})
    return {name: torch.cat([portion[name] for portion in portions]) for name in portions[0]}
