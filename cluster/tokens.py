"""The token of a cluster, which every node needs, and the one that follows from it for reading alone.

Who has the token runs code on every node. So what goes over a network in HTTP, and to a browser, is another, made from
it by a keyed hash: with that one pictures, figures and bundles are read, and nothing else is done.
"""

import hashlib
import hmac
import os
from pathlib import Path

from platformdirs import user_state_path

from warpfuse.graph.errors import ConfigError


def state_folder() -> Path:
    """Where a cluster keeps its token and what outlives its controller; made if missing, for its user alone."""
    folder: Path = user_state_path("warpfuse") / "cluster"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def token_file() -> Path:
    """The file with the token that every node of a cluster needs."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or state_folder() / "token")


def reading_token(file: Path) -> str:
    """The token for reading. file: that of the cluster. Raises ConfigError: it cannot be read."""
    try:
        token = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"the token of the cluster cannot be read: {file} ({error.strerror})") from None
    return hmac.new(token, b"warpfuse: reading", hashlib.sha256).hexdigest()
