"""The version. This module imports nothing, so that the build can read it."""

__version__ = "0.1.0"
