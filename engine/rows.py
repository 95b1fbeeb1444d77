"""Rows of any number through a network: one call, or as few as the batch it was built for allows."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine


def fixed_batch(engine: Engine) -> int | None:
    """Rows a call of the network takes, no more and no fewer; None for any number. Rows are axis 0 of every input."""
    return engine.inputs[0].shape[0]


def joined(feeds: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """The rows of several feeds as those of one, in their order; a lone feed as it is."""
    return feeds[0] if len(feeds) == 1 else {name: torch.cat([feed[name] for feed in feeds]) for name in feeds[0]}


def run_rows(engine: Engine, feed: Mapping[str, Tensor], batch: int | None) -> Mapping[str, Tensor]:
    """What the network gives for every row of `feed`: the engine's own memory, or a copy where it took several calls.

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
        # two slots of the engine hold two portions; a third would write over the first
        portions.append({name: out.clone() for name, out in portion.items()})
    return {name: torch.cat([portion[name] for portion in portions]) for name in portions[0]}
