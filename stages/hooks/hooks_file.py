"""Hooks: functions of a Python file of the user's, named by `hooks` in a graph file. docs/hooks.md tells of each.

The file is code, and runs with the rights of who runs it. A plan only parses it.
"""

import ast
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from warpfuse.engine.errors import one_line
from warpfuse.stages.errors import HookError

PLACES = ("source", "x0", "picture")
"""Functions that change a frame, and where they are called: places as those of stages of other packages."""

NAMES = (*PLACES, "settings")


def functions_of(file: str) -> tuple[str, ...]:
    """The hooks that a file defines. It is parsed and not run. Raises HookError."""
    try:
        tree = ast.parse(Path(file).read_bytes(), file)
    except OSError as error:
        raise HookError(f"hooks: {file}: {error.strerror or error}. Give a Python file") from None
    except SyntaxError as error:
        raise HookError(f"hooks: {file}:{error.lineno}: {error.msg}. Mend it") from None
    except ValueError as error:
        raise HookError(f"hooks: {file}: {one_line(error)}. Give a Python file") from None
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = tuple(name for name in NAMES if name in defined)
    if not found:
        raise HookError(
            f"hooks: {file}: expected a function of {', '.join(NAMES)}, got {', '.join(sorted(defined)) or 'none'}."
            " Define one"
        )
    return found


class Hook:
    """One function of a file. After an exception, or a value of another form, it is told and not called again.

    say  called with the line that tells of it, with file and line
    """

    def __init__(self, file: str, name: str, say: Callable[[str], None]) -> None:
        """Load the file, once for all its functions. Raises HookError."""
        self._file, self._name, self._say = file, name, say
        function = getattr(_loaded(file, Path(file).stat().st_mtime_ns), name, None)
        if not callable(function):
            raise HookError(f"hooks: {file}: {name} is no function. Define it by def {name}")
        self._function: Callable[..., Any] | None = function

    def __call__(self, *given: Any, lacks: Callable[[Any], str]) -> Any:
        """What the function gives for these arguments; None: nothing, or it is not called any more.

        lacks  what is wrong with a value that the function gave; "": it is right
        """
        if self._function is None:
            return None
        try:
            made = self._function(*given)
        except Exception as error:  # noqa: BLE001  (code of the user's may raise anything)
            self._leave_out(_place(self._file, error), f"{type(error).__name__}: {one_line(error)}")
            return None
        if made is None or not (wrong := lacks(made)):
            return made
        self._leave_out(f"{self._file}:{self._function.__code__.co_firstlineno}", wrong)
        return None

    def _leave_out(self, place: str, why: str) -> None:
        self._function = None
        self._say(f"hooks: {place}: {why}; the run goes on without {self._name}")


def settings_hook(file: str, say: Callable[[str], None]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """What the keys of a change become by the `settings` of a file; without one they stay. Raises HookError."""
    if not file or "settings" not in functions_of(file):
        return lambda keys: keys
    hook = Hook(file, "settings", say)

    def changed(keys: Mapping[str, Any]) -> Mapping[str, Any]:
        made = hook(dict(keys), lacks=_no_keys)
        return keys if made is None else dict(made)

    return changed


def _no_keys(made: object) -> str:
    return "" if isinstance(made, dict) else f"settings gave {type(made).__name__}, expected a dict of keys"


@cache
def _loaded(file: str, changed_ns: int) -> ModuleType:
    """The file as a module of its own: the hooks of a process share it, until it changes. Raises HookError."""
    module = ModuleType(f"warpfuse_hooks_{Path(file).stem}")
    module.__file__ = file
    try:
        exec(compile(Path(file).read_bytes(), file, "exec"), module.__dict__)
    except Exception as error:  # code of the user's may raise anything
        raise HookError(f"hooks: {_place(file, error)}: {type(error).__name__}: {one_line(error)}. Mend it") from error
    sys.modules[module.__name__] = module
    return module


def _place(file: str, error: Exception) -> str:
    """The last line of the file on the way to an exception."""
    lines = [entry.lineno for entry in traceback.extract_tb(error.__traceback__) if entry.filename == file]
    return f"{file}:{lines[-1]}" if lines else file
