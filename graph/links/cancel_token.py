"""The end of an epoch, as something every thread of a worker can wait for beside its sockets."""

from warpfuse.stages.timing import Waker


class CancelToken:
    """Set once; then `fd` stays readable for every poller that has it. Thread-safe. Whoever made it closes it.

    is_set  `set` has been called
    """

    def __init__(self) -> None:
        self._waker = Waker()
        self.is_set = False

    @property
    def fd(self) -> int:
        """A file descriptor that is readable from `set` on."""
        return self._waker.fd

    def set(self) -> None:
        """Wake every thread that waits. A second call does nothing."""
        if not self.is_set:
            self.is_set = True
            self._waker.wake()

    def close(self) -> None:
        """Close `fd`, when no thread polls it any more."""
        self._waker.close()
