"""Settings by Open Sound Control: an address is a key of the graph file, its argument the value.

    /prompt "ink"      /strength 0.7      /stages/fuse/weight 0.5
    /over_s/4/prompt "oil", /over_beats/8/look "storm": a crossfade; so with every key
    /look "storm", or /preset "storm"
    /start      /stop      /pause 1      /record 1      /snapshot      /tap
    /get "strength", or /get/strength: answered to the port that asked as /strength 0.7; without a name all there is
    /subscribe 1: from then on whatever changes, by whomever, is sent there; /subscribe 0

Note: OSC is UDP without any proof of who sends. It is taken from this machine alone, unless another host is asked for:
then whoever reaches that address controls the run, as a lighting desk does.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.osc_server import BlockingOSCUDPServer

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.midi_map import Action
from warpfuse.graph.plan.raw_keys import nested
from warpfuse.refusals import Refusals
from warpfuse.web.session import PageSession

LOOPBACK = "127.0.0.1"

_MOST_SUBSCRIBERS = 8  # the newest: who went without a word makes room
_TICK_S = 0.1  # how late a change of somebody else's is sent on at most

Sender = tuple[str, int]


class OscServer:
    """An OSC server: takes settings on a UDP port, in a thread, and answers queries. A context manager.

    say  told what was refused, each address once
    """

    def __init__(self, session: PageSession, port: int, say: Callable[[str], None], host: str = LOOPBACK) -> None:
        """Bind the port. Raises ConfigError if it is taken, or the address is not of this machine."""
        self._session, self._complain = session, Refusals(say)
        self._subscribers: list[Sender] = []
        self._seen, self._known = session.changed.count, dict[str, Any]()
        dispatcher = Dispatcher()
        dispatcher.set_default_handler(self._take, needs_reply_address=True)
        try:
            self._server = _Server((host, port), dispatcher, self._send_changes)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"OSC cannot be taken on {host} port {port}: {error}. Try another --osc or --osc-host"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_TICK_S,), name="wf:osc", daemon=True)

    def __enter__(self) -> "OscServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, sender: Sender, address: str, *values: Any) -> None:
        try:
            name, _, rest = address.strip("/").partition("/")
            if name in get_args(Action) and not rest:
                action: Action = name  # type: ignore[assignment]  # one of these words
                file = self._session.act(action, not values or bool(values[0]))
                if file is not None:
                    self._answer(sender, address, file)
            elif name == "get":
                self._tell(sender, rest or ".".join(str(value) for value in values[:1]))
            elif name == "subscribe" and not rest:
                self._subscribe(sender, not values or bool(values[0]))
            else:
                self._session.change(keys_of(address, values))
        except WarpfuseError as error:
            self._complain(f"OSC {address[:100]}: {error}", about=address)

    def _tell(self, sender: Sender, name: str) -> None:
        """Answer with the value of a key, or those of all keys below it."""
        wanted = name.strip("/.").replace(".", "/")
        state = self._state()
        found = {key: state[key] for key in state if not wanted or key == wanted or key.startswith(f"{wanted}/")}
        if not found:
            raise ConfigError(f"there is no {name[:60]!r} to get; expected a key, as in stages/fuse/weight")
        for key, value in found.items():
            self._answer(sender, f"/{key}", value)

    def _subscribe(self, sender: Sender, on: bool) -> None:
        self._subscribers = [one for one in self._subscribers if one != sender]
        if on:
            if not self._subscribers:
                self._seen, self._known = self._session.changed.count, self._state()
            self._subscribers = [*self._subscribers, sender][-_MOST_SUBSCRIBERS:]

    def _send_changes(self) -> None:
        count = self._session.changed.count
        if not self._subscribers or count == self._seen:
            return
        before, self._known = self._known, self._state()
        self._seen = count
        for key, value in self._known.items():
            if key not in before or before[key] != value:
                for subscriber in self._subscribers:
                    self._answer(subscriber, f"/{key}", value)

    def _state(self) -> dict[str, Any]:
        """Values that can be queried, by address: settings, state of the run, names of the looks."""
        found = dict(_leaves(self._session.settings(), ""))
        return {**found, "state": self._session.state, "looks": list(self._session.held.looks)}

    def _answer(self, to: Sender, address: str, value: Any) -> None:
        message = OscMessageBuilder(address)
        for one in value if isinstance(value, list) else [value]:
            message.add_arg(one)
        with contextlib.suppress(OSError):  # it has left
            self._server.socket.sendto(message.build().dgram, to)


class _Server(BlockingOSCUDPServer):
    """Calls `idle` after every message, and ten times a second."""

    def __init__(self, address: Sender, dispatcher: Dispatcher, idle: Callable[[], None]) -> None:
        super().__init__(address, dispatcher)
        self._idle = idle

    def service_actions(self) -> None:
        self._idle()


def keys_of(address: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """("/stages/fuse/weight", (0.7,)) -> {"stages": {"fuse": {"weight": 0.7}}}; several values are a list.

    ("/over_s/4/prompt", ("oil",)) -> {"prompt": "oil", "over_s": 4.0}. Raises ConfigError without a value or a name."""
    names = address.strip("/").split("/")
    if names[0] in ("over_s", "over_beats") and len(names) > 2:
        return {**keys_of("/".join(names[2:]), values), names[0]: _number(names[0], names[1])}
    names = ["look"] if names == ["preset"] else names
    if not values or not all(names):
        raise ConfigError("expected a key and its value, as in /stages/fuse/weight 0.7")
    return nested(names, _plain(values[0]) if len(values) == 1 else [_plain(each) for each in values])


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"expected a number, as in /{name}/4/prompt, got {text[:20]!r}") from None


def _plain(value: Any) -> Any:
    """Faders send 2.0 for 2, and 32-bit floats: 0.7 comes as 0.699999988079071."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else round(value, 6)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Addresses and values; the entries of a list of keys are named by their numbers."""
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        value = {str(number): one for number, one in enumerate(value)}
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}/{name}" if path else str(name))
    else:
        yield path, value
