"""Errors of the engines and bundles, and the root of every error this package raises on purpose.

WarpfuseError
└── BadInput                  input of the user cannot be used; the text says what, expected, got and the remedy
    ├── BundleError           a bundle is missing, changed, of another version, or not trusted
    └── EngineError           a network cannot be opened, or got an input it was not built for
        └── BackendMissing    the backend asked for is not installed or has no device
"""


class WarpfuseError(Exception):
    """Root of the errors raised on purpose. `str(error)` is one line that can be shown to the user."""


class BadInput(WarpfuseError):
    """Input of the user cannot be used."""


class BundleError(BadInput):
    """A bundle is missing, changed, of another version, or names files outside its folder."""


class EngineError(BadInput):
    """A network cannot be opened, or got an input it was not built for."""


class BackendMissing(EngineError):
    """The backend asked for is not installed, or the machine has no device for it."""


def one_line(error: BaseException | str, longest: int | None = None) -> str:
    """The text of an error on one line of at most `longest` characters. An error without text gives its type's name."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def typed_line(error: BaseException, longest: int | None = None) -> str:
    """The type of an error and its text, if any, on one line. For errors that were not raised on purpose."""
    kind = type(error).__name__
    line = one_line(error, longest)
    return kind if line == kind else f"{kind}: {line}"
