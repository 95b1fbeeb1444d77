"""The end of an epoch, as something every thread of a worker can wait for beside its sockets."""

import os


class Halt:
    """Set once; then `fd` stays readable for every poller that has it. Thread-safe. Whoever made it closes it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._set = False

    @property
    def fd(self) -> int:
        """A file descriptor that is readable from `set` on."""
        return self._read

    @property
    def is_set(self) -> bool:
        """`set` has been called."""
        return self._set

    def set(self) -> None:
        """Wake every thread that waits. A second call does nothing."""
        if not self._set:
            self._set = True
            os.write(self._write, b"!")

    def close(self) -> None:
        """Close both ends, when no thread polls `fd` any more."""
        os.close(self._read)
        os.close(self._write)
