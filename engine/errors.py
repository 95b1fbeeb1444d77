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
