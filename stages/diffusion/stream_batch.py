"""The stream batch: one network call for K consecutive frames (Kodaira et al. 2023), with fusion in every row.

At call n, row k holds frame n - k at level k. Each call moves every row one level down. The oldest frame leaves as a
predicted x0, and the newest enters:

    (x0, n)[k] = split(x[k], UNet(x)[k])
    x0[k]      = w_k warp(x0_past[k], flow_{n-k}) + (1 - w_k) x0[k]
    x[k + 1]   = alpha_{k+1} x0[k] + sigma_{k+1} n[k]

x0_past[k] is row k of call n - 1, which is the frame before at the same level. It is the same if all calls of a frame
are made before the next frame begins. So both ways give the same pictures and differ in the order of the calls only.

Rows of several streams may share calls. A row reads only the frame before in its own stream and its own noise, so
pictures of different streams do not influence one another.
"""

from collections.abc import Mapping, Sequence

from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.rows import Reference, Row, WarpRows, references_of, step
from warpfuse.stages.diffusion.settings import Kind

Pulls = Mapping[Kind, WarpRows]
"""The functions that warp x0 of earlier frames, by kind: as latents, or as pictures."""


def step_all(rows: Sequence[Row], denoise: Denoise, pulls: Pulls) -> None:
    """Make one network call for all rows and advance each by one call.

    rows   unfinished rows. The row of a frame must not be at a later call than that of the frame before in its stream
    pulls  has the kinds that the rows' settings use
    """
    pairs = denoise(rows)
    due = [references_of(row) for row in rows]
    pulled = _pulled([(row, one) for row, ones in zip(rows, due, strict=True) for one in ones if one.motion], pulls)
    for row, pair, ones in zip(rows, pairs, due, strict=True):
        step(row, pair, [pulled.get(id(one), one) for one in ones])


def _pulled(found: Sequence[tuple[Row, Reference]], pulls: Pulls) -> dict[int, Reference]:
    """References warped onto their row's frame, by the id of the unwarped reference."""
    made: dict[int, Reference] = {}
    ways = [(one.pull, row.schedule.warp.mode) for row, one in found]
    for kind, mode in dict.fromkeys(ways):  # one warp for all rows; several modes only during a change of settings
        alike = [one for one, way in zip(found, ways, strict=True) if way == (kind, mode)]
        onto = pulls[kind]([one.x0 for _, one in alike], [one.motion for _, one in alike if one.motion], mode)
        for (row, one), x0 in zip(alike, onto, strict=True):
            made[id(one)] = one._replace(x0=x0, motion=None)
            if one.window.kind == "reference" and row.anchor is not None:
                row.anchor.shown = x0  # it is the same after every call, so it is warped once
    return made


class StreamBatch:
    """The rows under way of one stream or several. Frames of a stream leave in the order in which they entered.

    `step` adds new rows, at most one a stream, makes one network call for all rows, and returns those that are finished
    by it. With K calls a frame, a row is finished K - 1 steps after the one that added it.

    rows  under way, the oldest first
    """

    def __init__(self, denoise: Denoise, pulls: Pulls) -> None:
        self._denoise = denoise
        self._pulls = pulls
        self.rows: list[Row] = []

    def __len__(self) -> int:
        return len(self.rows)

    def step(self, arrived: Sequence[Row] = ()) -> list[Row]:
        """Add rows, make one network call, return the finished rows. Without rows no call is made."""
        self.rows.extend(arrived)
        if not self.rows:
            return []
        # Each row reads x0 of the frame before, which that left after the same call one step ago.
        step_all(self.rows, self._denoise, self._pulls)
        finished = [row for row in self.rows if row.finished]
        self.rows = [row for row in self.rows if not row.finished]
        return finished
