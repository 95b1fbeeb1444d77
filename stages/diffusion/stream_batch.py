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

from collections.abc import Sequence

from torch import Tensor

from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.rows import Pull, Row, move, past_of, wants_between


def advance(rows: Sequence[Row], denoise: Denoise, pull: Pull | None) -> None:
    """Make one network call over all rows and move each a call on.

    rows  none of them finished. A frame's row must stand no further than that of the frame before in its stream
    pull  how x0 of the frame before is brought onto a frame; only for rows whose settings fuse it
    """
    pairs = denoise(rows)
    pasts = [(row, past_of(row)) for row in rows if wants_between(row) and row.program.fuse.between != "reference"]
    found = [(row, past, row.motion) for row, past in pasts if past is not None and row.motion is not None]
    pulled: dict[int, Tensor] = {}
    for mode in dict.fromkeys(row.program.warp.mode for row, _, _ in found):  # one, but while a change passes through
        assert pull is not None, "rows fuse the frame before, but nothing was built to pull it"
        alike = [one for one in found if one[0].program.warp.mode == mode]
        onto = pull([past for _, past, _ in alike], [motion for _, _, motion in alike], mode)
        pulled |= {id(row): x0 for (row, _, _), x0 in zip(alike, onto, strict=True)}
    for row, pair in zip(rows, pairs, strict=True):
        move(row, pair, pulled.get(id(row)))


class StreamBatch:
    """The rows of one stream or several. Frames of a stream leave in the order they came.

    `step` takes the frames that arrived, at most one a stream, makes one network call over all rows, and returns the
    rows that finished with it. With plans of K calls a frame leaves with the K - 1st step after its own.
    """

    def __init__(self, denoise: Denoise, pull: Pull | None) -> None:
        self._denoise = denoise
        self._pull = pull
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def step(self, arrived: Sequence[Row] = ()) -> list[Row]:
        """One network call; nothing at all when there is no row."""
        self._rows.extend(arrived)
        if not self._rows:
            return []
        # pulled past first: `advance` reads what the frame before left after this call, made one step ago
        advance(self._rows, self._denoise, self._pull)
        finished = [row for row in self._rows if row.finished]
        self._rows = [row for row in self._rows if not row.finished]
        return finished
