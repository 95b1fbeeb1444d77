"""Frames of each stream over all its lives: in + repeated = out + dropped, when no life is under way.

What a lost host did after its last beat nobody knows. So the frames that were on their way then, and those that the
source gave until the next life read its first, are reckoned: they are counted in and dropped, and marked.
"""

from dataclasses import dataclass, field, replace

from warpfuse.graph.control.messages import StreamCounts


@dataclass(frozen=True, slots=True)
class Books:
    """Frames of a stream. reckoned: those among the dropped that nobody counted; lives: begun so far."""

    into: int = 0
    out: int = 0
    repeated: int = 0
    dropped: int = 0
    under_way: int = 0
    reckoned: int = 0
    lives: int = 0

    @property
    def balanced(self) -> bool:
        """The law of the books."""
        return self.into + self.repeated == self.out + self.dropped + self.under_way


@dataclass
class _Account:
    closed: Books = field(default_factory=Books)
    now: StreamCounts | None = None
    open: bool = False
    heard_s: float = 0.0
    lost_s: float | None = None


@dataclass
class Ledger:
    """The books of all streams. Times in seconds, of one monotonic clock."""

    _accounts: dict[str, _Account] = field(default_factory=dict)

    def carry_over(self, stream: str, closed: Books) -> None:
        """Begin with what the lives before have come to, as `closed` told it."""
        self._accounts[stream] = _Account(closed)

    def closed(self, stream: str) -> Books:
        """The lives that are over."""
        account = self._accounts.get(stream, _Account())
        return replace(account.closed, lives=account.closed.lives - account.open)

    def begin(self, stream: str, now_s: float) -> None:
        """A life begins."""
        account = self._accounts.setdefault(stream, _Account())
        assert not account.open, "a stream has one life at a time"
        account.open, account.now, account.heard_s = True, None, now_s
        account.closed = replace(account.closed, lives=account.closed.lives + 1)

    def hear(self, stream: str, counts: StreamCounts, now_s: float, rate: float) -> None:
        """The counts of the life under way. rate: frames a second that its source gives"""
        account = self._accounts[stream]
        if account.lost_s is not None and counts.into:
            self._reckon(account, round(rate * max(0.0, now_s - account.lost_s)))
            account.lost_s = None
        account.now, account.heard_s = counts, now_s

    def end(self, stream: str, *, lost: bool) -> None:
        """The life under way is over. lost: its host can tell no more of it."""
        account = self._accounts[stream]
        assert account.open, "no life is under way"
        if account.now is not None:
            now, was = account.now, account.closed
            account.closed = replace(
                was,
                into=was.into + now.into,
                out=was.out + now.out,
                repeated=was.repeated + now.repeated,
                dropped=was.dropped + now.dropped + now.under_way,
                reckoned=was.reckoned + now.under_way,
            )
        if lost and account.lost_s is None:
            account.lost_s = account.heard_s
        account.open, account.now = False, None

    def books(self, stream: str) -> Books:
        """All lives so far."""
        account = self._accounts.get(stream, _Account())
        now, was = account.now, account.closed
        if now is None:
            return was
        counts = was.into + now.into, was.out + now.out, was.repeated + now.repeated, was.dropped + now.dropped
        return Books(*counts, now.under_way, was.reckoned, was.lives)

    def _reckon(self, account: _Account, frames: int) -> None:
        was = account.closed
        more = was.dropped + frames, was.reckoned + frames
        account.closed = replace(was, into=was.into + frames, dropped=more[0], reckoned=more[1])
