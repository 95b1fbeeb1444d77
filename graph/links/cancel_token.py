"""The end of an epoch, as something every thread of a worker can wait for beside its sockets."""

from warpfuse.stages.timing import Waker


class Halt:
    """Set once; then `fd` stays readable for every poller that has it. Thread-safe. Whoever made it closes it."""

    def __init__(self) -> None:
        self._waker = Waker()
        self._set = False

    @property
    def fd(self) -> int:
        """A file descriptor that is readable from `set` on."""
        return self._waker.fd

    @property
    def is_set(self) -> bool:
        """`set` has been called."""
        return self._set

    def set(self) -> None:
        """Wake every thread that waits. A second call does nothing."""
        if not self._set:
            self._set = True
            self._waker.wake()

    def close(self) -> None:
        """Close `fd`, when no thread polls it any more."""
        self._waker.close()
