"""Errors of the engines and bundles, and the root of every error this package raises on purpose.

WarpfuseError
└── BadInput                  what the user gave cannot be used; the text says what, expected, got and the remedy
    ├── BundleError           a bundle is missing, torn, of another version, or not to be trusted
    └── EngineError           a network cannot be opened or was fed something it was not built for
        └── BackendMissing    the backend asked for by name is not installed or has no device
"""


class WarpfuseError(Exception):
    """Root of the errors raised on purpose. `str(error)` is one line, fit to be shown to a user."""


class BadInput(WarpfuseError):
    """Something the user gave cannot be used."""


class BundleError(BadInput):
    """A bundle is missing, torn, of another version, or names files outside itself."""


class EngineError(BadInput):
    """A network cannot be opened, or was fed a tensor it was not built for."""


class BackendMissing(EngineError):
    """The backend asked for is not installed, or the machine has no device for it."""


def one_line(error: BaseException | str, longest: int | None = None) -> str:
    """The text of an error on one line, of at most `longest` characters; the name of its type where it has no text."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def typed_line(error: BaseException, longest: int | None = None) -> str:
    """An error that was not raised on purpose, on one line: its type, and its text where it has one."""
    kind = type(error).__name__
    line = one_line(error, longest)
    return kind if line == kind else f"{kind}: {line}"
