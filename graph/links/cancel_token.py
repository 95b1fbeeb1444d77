"""A cancel token: ends an epoch. The threads of a worker poll its file descriptor beside their sockets."""

from warpfuse.stages.timing import Waker


class CancelToken:
    """A one-way flag with a file descriptor. After `set`, `fd` is readable for every poller, and stays so.

    is_set  `set` has been called

    Thread-safe. The creator closes it.
    """

    def __init__(self) -> None:
        self._waker = Waker()
        self.is_set = False

    @property
    def fd(self) -> int:
        """The file descriptor to poll: readable once `set` was called."""
        return self._waker.fd

    def set(self) -> None:
        """Wake every waiting thread. A second call does nothing."""
        if not self.is_set:
            self.is_set = True
            self._waker.wake()

    def close(self) -> None:
        """Close `fd`. Call it when no thread polls it any more."""
        self._waker.close()
