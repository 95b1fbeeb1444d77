"""Settings by Open Sound Control: an address is a key of the graph file, its argument the value.

    /prompt "ink"      /strength 0.7      /stages/fuse/weight 0.5      /pause 1      /pause 0
    /over_s/4/prompt "oil": a crossfade of four seconds; so with every key
    /look "storm", or /preset "storm"      /start      /stop      /record 1      /record 0

Note: OSC is UDP without any proof of who sends. It is taken from this machine alone, unless another host is asked for:
then whoever reaches that address controls the run, as a lighting desk does.
"""

import threading
from collections.abc import Callable
from typing import Any

from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_server import BlockingOSCUDPServer

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.errors import ConfigError
from warpfuse.web.session import PageSession

LOOPBACK = "127.0.0.1"
_MOST_COMPLAINTS = 100  # different ones; who sends more of them is not answered any more


class OscServer:
    """Takes settings from a port in a thread of its own. A context manager.

    say  told what was refused, each address once
    """

    def __init__(self, session: PageSession, port: int, say: Callable[[str], None], host: str = LOOPBACK) -> None:
        """Bind. Raises ConfigError when the port is taken, or the address is none of this machine."""
        self._session, self._say = session, say
        self._told: set[str] = set()
        dispatcher = Dispatcher()
        dispatcher.set_default_handler(self._take)
        try:
            self._server = BlockingOSCUDPServer((host, port), dispatcher)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"OSC cannot be taken on {host} port {port}: {error}. Try another --osc or --osc-host"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="wf:osc", daemon=True)

    def __enter__(self) -> "OscServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, address: str, *values: Any) -> None:
        try:
            if address == "/pause":
                (self._session.pause if not values or values[0] else self._session.resume)()
            elif address == "/start":
                self._session.start()
            elif address == "/stop":
                self._session.stop()
            elif address == "/record":
                self._session.record(not values or bool(values[0]))
            else:
                self._session.change(keys_of(address, values))
        except WarpfuseError as error:
            self._complain(address, str(error))

    def _complain(self, address: str, text: str) -> None:
        if address not in self._told and len(self._told) < _MOST_COMPLAINTS:
            self._told.add(address)
            self._say(f"OSC {address[:100]}: {text}")


def keys_of(address: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """("/stages/fuse/weight", (0.7,)) -> {"stages": {"fuse": {"weight": 0.7}}}; several values are a list.

    ("/over_s/4/prompt", ("oil",)) -> {"prompt": "oil", "over_s": 4.0}. Raises ConfigError without a value or a name."""
    names = address.strip("/").split("/")
    if names[0] == "over_s" and len(names) > 2:
        return {**keys_of("/".join(names[2:]), values), "over_s": _seconds(names[1])}
    names = ["look"] if names == ["preset"] else names
    if not values or not all(names):
        raise ConfigError("expected a key and its value, as in /stages/fuse/weight 0.7")
    value: Any = _plain(values[0]) if len(values) == 1 else [_plain(each) for each in values]
    for name in reversed(names):
        value = {name: value}
    keys: dict[str, Any] = value
    return keys


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"expected seconds, as in /over_s/4/prompt, got {text[:20]!r}") from None


def _plain(value: Any) -> Any:
    """Faders send 2.0 for 2, and 32-bit floats: 0.7 comes as 0.699999988079071."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else round(value, 6)
