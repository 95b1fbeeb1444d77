"""The stream batch: K network calls of K consecutive frames made as one (Kodaira et al. 2023), fused in every row.

At call n, row k holds frame n - k at level k. One call moves every row a level down, the oldest leaves as a predicted
x0, the newest frame enters:

    (x0, n)[k] = split(x[k], UNet(x)[k])
    x0[k]      = w_k warp(x0_past[k], flow_{n-k}) + (1 - w_k) x0[k]
    x[k + 1]   = alpha_{k+1} x0[k] + sigma_{k+1} n[k]

x0_past[k] is row k of call n - 1: the frame before, at the same level. A frame sampled alone, all its calls in a row
before the next begins, has the same past, so both give the same pictures; only the order of the work differs.

Rows of several streams may be moved together. Each knows its own stream's frame before and its own noise, and nothing
else of a row is ever read: streams share the call and no picture.
"""

from collections.abc import Mapping, Sequence

from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.rows import Reference, Row, WarpRows, references_of, step
from warpfuse.stages.diffusion.settings import Kind

Pulls = Mapping[Kind, WarpRows]
"""How x0 of an earlier frame is brought onto a frame: as a latent, or as a picture."""


def step_all(rows: Sequence[Row], denoise: Denoise, pulls: Pulls) -> None:
    """Make one network call over all rows and move each a call on.

    rows   none of them finished. A frame's row must stand no further than that of the frame before in its stream
    pulls  those that the rows' settings ask for
    """
    pairs = denoise(rows)
    due = [references_of(row) for row in rows]
    pulled = _pulled([(row, one) for row, ones in zip(rows, due, strict=True) for one in ones if one.motion], pulls)
    for row, pair, ones in zip(rows, pairs, due, strict=True):
        step(row, pair, [pulled.get(id(one), one) for one in ones])


def _pulled(found: Sequence[tuple[Row, Reference]], pulls: Pulls) -> dict[int, Reference]:
    """References that lie on another frame's places, pulled onto their row's frame; by the id of what they were."""
    made: dict[int, Reference] = {}
    ways = [(one.pull, row.schedule.warp.mode) for row, one in found]
    for kind, mode in dict.fromkeys(ways):  # a warp for all rows; more modes than one while a change passes through
        alike = [one for one, way in zip(found, ways, strict=True) if way == (kind, mode)]
        onto = pulls[kind]([one.x0 for _, one in alike], [one.motion for _, one in alike if one.motion], mode)
        for (row, one), x0 in zip(alike, onto, strict=True):
            made[id(one)] = one._replace(x0=x0, motion=None)
            if one.window.kind == "reference" and row.anchor is not None:
                row.anchor.shown = x0  # the same after every call
    return made


class StreamBatch:
    """The rows of one stream or several. Frames of a stream leave in the order they came.

    `step` takes the frames that arrived, at most one a stream, makes one network call over all rows, and returns the
    rows that finished with it. With plans of K calls a frame leaves with the K - 1st step after its own.
    """

    def __init__(self, denoise: Denoise, pulls: Pulls) -> None:
        self._denoise = denoise
        self._pulls = pulls
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def step(self, arrived: Sequence[Row] = ()) -> list[Row]:
        """One network call; nothing at all when there is no row."""
        self._rows.extend(arrived)
        if not self._rows:
            return []
        # pulled past first: `step_all` reads what the frame before left after this call, made one step ago
        step_all(self._rows, self._denoise, self._pulls)
        finished = [row for row in self._rows if row.finished]
        self._rows = [row for row in self._rows if not row.finished]
        return finished
