"""Compiling loops over pictures for the processor, with numba.

On a CPU, the time for a picture is the time for reading and writing its memory. A chain of library calls does so once a
call, a kernel once. A kernel is a loop in Python with a declared signature, so that it is compiled before frames flow.
The machine code is kept on disk for later runs, beside the source or in a folder of the user.
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
"""Optimizations the compiler may use: fused multiply-add, reordered sums. NaN is still respected."""
_jit: Any = partial(numba.njit, nogil=True, error_model="numpy")

_kernels: list["Kernel[..., Any]"] = []


class Kernel(Generic[P, R]):
    """A function over numpy arrays, compiled for one signature when it is first called, or by `ready`.

    It releases the GIL while it runs. Arrays of other types or layouts raise TypeError. Indices are not checked. So a
    kernel whose indices depend on data must bound them itself, also for NaN, which may become any integer.
    """

    def __init__(self, function: Callable[P, R], signature: str, exact: bool = False) -> None:
        self._function = function
        self._signature = signature
        self._fastmath = set() if exact else _RELAXED
        self._compiled: Callable[P, R] | None = None
        self.__doc__, self.__name__ = function.__doc__, function.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function; compile it first if that was not done."""
        return (self._compiled or self.ready())(*args, **kwargs)

    def ready(self) -> Callable[P, R]:
        """Compile the function, or load the code of an earlier run. Thread-safe. Raises KernelError if the code cannot
        be kept on disk."""
        if self._compiled is not None:
            return self._compiled
        try:
            compiled = _jit(cache=True, fastmath=self._fastmath)(self._function)
        except RuntimeError as error:  # from numba, without a remedy
            raise KernelError(
                f"machine code of {self.__name__} has to be kept, and neither the folder of the source nor that of the "
                f"user can be written; name one that can: NUMBA_CACHE_DIR=/some/folder ({error})"
            ) from error
        compiled.compile(self._signature)
        compiled.disable_compile()
        self._compiled = compiled
        return self._compiled


def kernel(signature: str, exact: bool = False) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Make a function a `Kernel`. A decorator.

    signature  numba's signature, as in "void(float32[:, ::1], float32)"
    exact      round every operation as written, so that results equal torch's to the bit. Sums are slower

    The functions it calls must be in the same file. numba does not compile it again when another file changes.
    """

    def made(function: Callable[P, R]) -> Kernel[P, R]:
        _kernels.append(one := Kernel(function, signature, exact))
        return one

    return made


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function callable from kernels of the same file. A decorator."""
    compiled: Callable[P, R] = _jit(fastmath=_RELAXED)(function)
    return compiled


def exact_part(function: Callable[P, R]) -> Callable[P, R]:
    """As `part`, for kernels that are exact."""
    compiled: Callable[P, R] = _jit(fastmath=set())(function)
    return compiled


def compile_all(say: Callable[[str], None] = lambda line: None) -> None:
    """Compile every kernel of this package. say: called once before the first compilation, if any is needed."""
    package = import_module(__name__.rpartition(".")[0])
    for entry in iter_modules(package.__path__):  # a stage's modules are imported when it is opened, which is too late
        import_module(f"{package.__name__}.{entry.name}")
    with event.install_listener("numba:compile", _Once(say)):
        for one in _kernels:
            one.ready()


class _Once(event.Listener):
    """Calls `say` at the first compilation. numba reports no event when it loads code from disk."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say: Callable[[str], None] | None = say

    def on_start(self, happened: object) -> None:
        """Handle the begin of a compilation."""
        if self._say is not None:
            self._say("compiling the picture loops for this processor: about ten seconds, once")
            self._say = None

    def on_end(self, happened: object) -> None:
        """Ignore the end of a compilation."""
