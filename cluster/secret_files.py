"""What `${secret:NAME}` stands for: one line of a file NAME that only its user can read, on the host that needs it.

The references travel, the secrets do not: a host puts them into the keys of a stream just before it opens the stream.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warpfuse.engine.redact import HIDDEN, redact
from warpfuse.graph.errors import ConfigError

REFERENCE = re.compile(r"\$\{secret:([A-Za-z0-9_-]+)\}")


class SecretFiles:
    """The secrets of a folder. It remembers those it has read, to keep them out of what is told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, str] = {}

    def filled_in(self, keys: Any) -> Any:
        """Keys with every reference replaced. Raises ConfigError: a secret is missing, or others may read it."""
        if isinstance(keys, str):
            return REFERENCE.sub(lambda found: self._secret(found[1]), keys)
        if isinstance(keys, Mapping):
            return {key: self.filled_in(value) for key, value in keys.items()}
        return [self.filled_in(value) for value in keys] if isinstance(keys, list | tuple) else keys

    def hidden(self, text: str) -> str:
        """Text without secrets, wherever in it they stand."""
        for secret in sorted(self._read.values(), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return redact(text)

    def _secret(self, name: str) -> str:
        path = self._folder / name
        try:
            if hasattr(os, "getuid") and stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise ConfigError(f"secret {name}: others may read {path}; chmod 600 {path}")
            secret = path.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(f"secret {name}: {path} cannot be read ({why}); put it there, with mode 0600") from None
        if not secret or "\n" in secret:
            raise ConfigError(
                f"secret {name}: {path} holds {'several lines' if secret else 'nothing'}; expected one line"
            )
        self._read[name] = secret
        return secret
