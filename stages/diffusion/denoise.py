"""Running the UNet on rows of any frames, in one call or in as few as its batch size allows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine, is_capturable
from warpfuse.engine.rows import fixed_batch, joined, run_rows
from warpfuse.stages.diffusion.guidance import assumed, guided
from warpfuse.stages.diffusion.rows import Row
from warpfuse.stages.diffusion.schedule import Sampling
from warpfuse.stages.solvers.network import network_input, split, split_clean

Pair = tuple[Tensor, Tensor]


class Denoise:
    """Runs the UNet on rows, each with its own level and prompt, and applies guidance.

    Of the following the UNet is fed those for which it has inputs: latents `x` and `source`, `level` or `timestep`, the
    conditioning by name, hints of control maps, tokens of earlier frames. Tokens that it returns are kept for later
    frames. If no row needs the deep part of the UNet (`deep.py`), only its shallow part runs.

    Unconditional passes for guidance follow the conditional ones in the same batch. A network built for a fixed batch
    runs on portions of that size, the last one padded with copies of its first row.
    Owns the engines and closes them.

    shallow  the shallow part of the UNet; None: the bundle has none
    """

    def __init__(self, unet: Engine, sampling: Sampling, shallow: Engine | None = None) -> None:
        self._unet = unet
        self._shallow = shallow
        self._sampling = sampling
        self._batch = fixed_batch(unet)

    def __call__(self, rows: Sequence[Row]) -> list[Pair]:
        """The guided pair (x0, n) of every row, [1, c, h, w] each. They may be the engine's memory, which is valid
        until its next-but-one call."""
        twice = [row for row in rows if row.schedule.guidance.asks_twice(row.k == 0)]
        passes = [(row, False) for row in rows] + [(row, True) for row in twice]
        outputs = self._run(passes)
        unconditional = {
            id(row): self._split(row, output) for row, output in zip(twice, outputs[len(rows) :], strict=True)
        }
        return [
            _guide(row, self._split(row, output), unconditional.get(id(row)))
            for row, output in zip(rows, outputs[: len(rows)], strict=True)
        ]

    @property
    def capturable(self) -> bool:
        """Whether a CUDA graph may hold its next call."""
        return is_capturable(self._unet)

    def close(self) -> None:
        """Close the networks."""
        self._unet.close()
        if self._shallow is not None:
            self._shallow.close()

    def _feed(self, network: Engine, row: Row, apart: bool) -> dict[str, Tensor]:
        """The inputs of one pass. apart: it is the unconditional pass for guidance."""
        call, schedule = row.schedule.plan[row.k], row.schedule
        x = network_input(row.x, call.level)
        conditioning = schedule.unconditional if apart else schedule.conditioning
        offered = {"x": x, "source": row.source, **schedule.told[row.k], **conditioning, **row.hints}
        if row.past is not None:
            cells = (row.x.shape[-2], row.x.shape[-1])
            offered |= row.past.offered((row.k, apart), schedule.attention, call.seen.timestep, cells)
        if network is self._shallow and row.deep is not None:
            offered["deep"] = row.deep.warped((row.k, apart))
        return {spec.name: offered[spec.name].to(getattr(torch, spec.dtype)) for spec in network.inputs}

    def _split(self, row: Row, output: Tensor) -> Pair:
        call = row.schedule.plan[row.k]
        way = split_clean if call.level_next.sigma == 0 else split
        return way(row.x, output, call.level, self._sampling.prediction)

    def _run(self, passes: Sequence[tuple[Row, bool]]) -> list[Tensor]:
        """The output of the network in each pass, in their order."""
        network = self._network_for(passes)
        given = run_rows(network, joined([self._feed(network, row, apart) for row, apart in passes]), self._batch)
        for i, (row, apart) in enumerate(passes):  # what is kept is copied: the engine's own is borrowed
            if row.past is not None:
                row.past.leave((row.k, apart), given["kept"][i : i + 1].clone())
            if row.deep is not None and network is self._unet:
                row.deep.leave((row.k, apart), given["deep"][i : i + 1].clone())
        return [given["output"][i : i + 1] for i in range(len(passes))]

    def _network_for(self, passes: Sequence[tuple[Row, bool]]) -> Engine:
        """The shallow part if no pass needs the deep one, else the whole UNet."""
        if self._shallow is None or any(row.deep is None or row.deep.due((row.k, apart)) for row, apart in passes):
            return self._unet
        return self._shallow


def _guide(row: Row, conditional: Pair, unconditional: Pair | None) -> Pair:
    guidance, level = row.schedule.guidance, row.schedule.plan[row.k].level
    match guidance.mode:
        case "none":
            return conditional
        case "full":
            assert unconditional is not None
            return guided(conditional, unconditional, guidance.scale)
        case "self":
            row.assumed = row.source
        case "initialize":
            if unconditional is not None:
                row.assumed = unconditional[0].clone()  # kept for later calls; the engine's own is not
    assert row.assumed is not None
    return guided(conditional, assumed(row.x, row.assumed, level, guidance.delta), guidance.scale)
