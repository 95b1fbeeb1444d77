"""Loops over pictures, compiled for the processor they run on.

What a picture costs on a CPU is the memory it goes through. A chain of library calls goes through it once a call; a
kernel goes through it once. It is written as the loop it is, and says its types, so that nothing is compiled while
frames flow. The machine code stays on disk, beside the source or in a folder of the user, for every later run.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Generic, ParamSpec, TypeVar

import numba
from numba.core import event

from warpfuse.stages.errors import KernelError

P = ParamSpec("P")
R = TypeVar("R")

_RELAXED = {"contract", "nsz", "reassoc"}
"""What the compiler may do to sums: fused multiply-add, other orders. NaN stays NaN."""
_jit: Any = partial(numba.njit, nogil=True, error_model="numpy")

_kernels: list["Kernel[..., Any]"] = []


class Kernel(Generic[P, R]):
    """A function over numpy arrays, compiled for one signature when it is first called, or by `ready`.

    It does not hold Python's lock while it runs. Arrays of other types or layouts raise TypeError; indices are not
    checked, so a kernel that reads where its data say holds every index itself: a NaN becomes any integer.
    """

    def __init__(self, function: Callable[P, R], signature: str, exact: bool = False) -> None:
        self._function = function
        self._signature = signature
        self._fastmath = set() if exact else _RELAXED
        self._compiled: Callable[P, R] | None = None
        self.__doc__, self.__name__ = function.__doc__, function.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it."""
        return (self._compiled or self.ready())(*args, **kwargs)

    def ready(self) -> Callable[P, R]:
        """Compile, or take what an earlier run compiled. Thread-safe. Raises KernelError where it cannot be kept."""
        if self._compiled is not None:
            return self._compiled
        try:
            compiled = _jit(cache=True, fastmath=self._fastmath)(self._function)
        except RuntimeError as error:  # numba's, and it says nothing of a remedy
            raise KernelError(
                f"machine code of {self.__name__} has to be kept, and neither the folder of the source nor that of the "
                f"user can be written; name one that can: NUMBA_CACHE_DIR=/some/folder ({error})"
            ) from error
        compiled.compile(self._signature)
        compiled.disable_compile()
        self._compiled = compiled
        return self._compiled


def kernel(signature: str, exact: bool = False) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Decorator.

    signature  numba's, as in "void(float32[:, ::1], float32)"
    exact      every operation is rounded as it is written, so results are those of torch to the bit. Sums get slow

    What the function calls must be in its own file: a change elsewhere would not renew the machine code.
    """

    def made(function: Callable[P, R]) -> Kernel[P, R]:
        _kernels.append(one := Kernel(function, signature, exact))
        return one

    return made


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a function that kernels of the same file call: compiled as a piece of them."""
    compiled: Callable[P, R] = _jit(fastmath=_RELAXED)(function)
    return compiled


def exact_part(function: Callable[P, R]) -> Callable[P, R]:
    """The same for kernels that are exact."""
    compiled: Callable[P, R] = _jit(fastmath=set())(function)
    return compiled


def compile_all(say: Callable[[str], None] = lambda line: None) -> None:
    """Compile every kernel of this package. say: told before, once, where that was never done."""
    package = import_module(__name__.rpartition(".")[0])
    for entry in iter_modules(package.__path__):  # stages are imported when they are opened, which is too late
        import_module(f"{package.__name__}.{entry.name}")
    with event.install_listener("numba:compile", _Once(say)):
        for one in _kernels:
            one.ready()


class _Once(event.Listener):
    """Says that something is compiled: there is no event where machine code is found."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say: Callable[[str], None] | None = say

    def on_start(self, happened: object) -> None:
        """A function is about to be compiled."""
        if self._say is not None:
            self._say("compiling the picture loops for this processor: about ten seconds, once")
            self._say = None

    def on_end(self, happened: object) -> None:
        """Nothing to say."""
