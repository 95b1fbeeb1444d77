"""CURVE keys for links between hosts. They decide which readers may connect and to which sender.

`warpfuse keys DIR` makes

    server.key  server.key_secret     of the host that sends (it binds)
    client.key  client.key_secret     of the host that reads (it connects)
    allowed/client.key                public keys of the readers that are let in

The sender's host needs server.key_secret and allowed/, the reader's client.key_secret and server.key.

CURVE alone admits every client that knows the server's public key. Restricting clients takes a ZAP handler. So every
socket names a ZAP domain and enforces it: if its context has no handler, every client is refused.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.auth.thread import ThreadAuthenticator

from warpfuse.graph.errors import KeysMissing

_DOMAIN = "warpfuse"
_SERVER, _CLIENT, _ALLOWED = "server", "client", "allowed"


@dataclass(frozen=True, slots=True)
class Keys:
    """A folder of keys. The files are read when a socket is opened, and only those that its side needs."""

    folder: Path

    @property
    def allowed(self) -> Path:
        """The folder of the readers' public keys, one file each."""
        return self.folder / _ALLOWED

    def secret(self, name: str) -> tuple[bytes, bytes]:
        """(public, secret) of server or client. Raises KeysMissing."""
        path = self.folder / f"{name}.key_secret"
        public, secret = _load(path)
        if secret is None:
            raise KeysMissing(f"{path} holds no secret key. Make a pair with: warpfuse keys {self.folder}")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeysMissing(f"{path} can be read by others. Run: chmod 600 {path}, or make new keys")
        return public, secret

    def server(self) -> bytes:
        """Public key of the sender's host. Raises KeysMissing."""
        return _load(self.folder / f"{_SERVER}.key")[0]


def make_keys(folder: Path) -> list[Path]:
    """Make a server's key pair, a client's, and an allow-list with that client. Returns the files written.

    Raises KeysMissing when keys exist already: overwriting them would lock out every other host.
    """
    made = [folder / f"{name}.key{kind}" for name in (_SERVER, _CLIENT) for kind in ("", "_secret")]
    there = [path for path in made if path.exists()]
    if there:
        raise KeysMissing(f"{there[0]} exists. Remove the folder, or name another, to make new keys")
    allowed = folder / _ALLOWED
    before = os.umask(0o077)
    try:
        allowed.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name in (_SERVER, _CLIENT):
            create_certificates(folder, name)
        (allowed / f"{_CLIENT}.key").write_bytes((folder / f"{_CLIENT}.key").read_bytes())
    finally:
        os.umask(before)
    made.append(allowed / f"{_CLIENT}.key")
    for path in made:
        path.chmod(0o600)
    return made


@contextlib.contextmanager
def admission(context: "zmq.Context[Any]", keys: Keys) -> Iterator[None]:
    """Within the block, this context's tcp sockets admit the readers of the allow-list and refuse all others.

    One for each context; its ZAP handler has a thread of its own. Enter before a sender is opened and leave before the
    context is terminated. The allow-list is read on entry. Raises KeysMissing for an empty list.
    """
    if not any(keys.allowed.glob("*.key")):
        raise KeysMissing(f"{keys.allowed} holds no public key (*.key): no reader could connect")
    handler = ThreadAuthenticator(context)
    handler.start()
    try:
        handler.configure_curve(domain=_DOMAIN, location=str(keys.allowed))
        yield
    finally:
        handler.stop()


def as_server(socket: "zmq.Socket[bytes]", keys: Keys) -> None:
    """Set a sender's socket up for CURVE, before `bind`. Raises KeysMissing."""
    public, secret = keys.secret(_SERVER)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def as_client(socket: "zmq.Socket[bytes]", keys: Keys) -> None:
    """Set a reader's socket up for CURVE, before `connect`. Raises KeysMissing."""
    public, secret = keys.secret(_CLIENT)
    socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return load_certificate(path)
    except (OSError, ValueError):
        reason = "is no key file" if path.exists() else "is not there"
        raise KeysMissing(f"{path} {reason}. Make keys with: warpfuse keys DIR") from None
