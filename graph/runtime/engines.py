"""The networks of a run. Each is opened with the first backend, and moves to a faster one once that is built."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from warpfuse.engine.background import Builds, Order
from warpfuse.engine.bundle_file import BundleFile, FlowBundleFile, MapBundleFile
from warpfuse.engine.bundle_parts import Sizes
from warpfuse.engine.contract import Engine
from warpfuse.engine.feed import Shapes
from warpfuse.engine.open import network_name, open_engine
from warpfuse.engine.swap import SwappingEngine
from warpfuse.graph.runtime.shared_engine import SharedEngine


@dataclass
class Engines:
    """Opens networks. The caller of `open` closes the network; `close` stops the builds under way.

    backend    the first backend of every network
    threads    threads a network may use on a CPU
    upgrade    a faster backend, built in the background; None: none
    say        called when a network changes its backend, or cannot, with the reason
    """

    backend: str
    device: str
    threads: int
    upgrade: str | None = None
    say: Callable[[str], None] = lambda line: None
    builds: Builds = field(default_factory=Builds)

    def __post_init__(self) -> None:
        self._opened: list[Engine] = []

    def open(self, path: Path, shapes: Shapes | None = None) -> Engine:
        """Open a network. shapes: its input shapes, None for any size. Raises BackendMissing, EngineError."""
        engine = open_engine(path, self.backend, self.device, threads=self.threads, shapes=shapes)
        if self.upgrade is not None:
            coming = self.builds.order(Order(path, self.upgrade, self.device, shapes))
            engine = SwappingEngine(engine, coming, lambda line: self.say(f"{network_name(path)}: {line}"))
        self._opened.append(engine)
        return engine

    @property
    def in_use(self) -> str:
        """The backends in use, joined as in "onnxruntime+tensorrt-rtx"."""
        return "+".join(sorted({engine.backend for engine in self._opened})) or self.backend

    def close(self) -> None:
        """Stop the builds under way."""
        self.builds.close()


@dataclass
class SharedEngines(Engines):
    """Opens every network once for several streams. Calls of the UNet may combine their rows.

    unets       files of the networks that take rows of several streams in one call. Encoder and decoder do not: at
                their size, more rows a call gain nothing
    batch       most rows of several streams in one call; None: all that wait
    patience_s  longest time a call waits for streams that are expected to ask soon
    """

    unets: frozenset[Path] = frozenset()
    batch: int | None = None
    patience_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._opening = threading.Lock()
        self._shared: dict[tuple[Path, str], SharedEngine] = {}

    def open(self, path: Path, shapes: Shapes | None = None) -> Engine:
        """A client of a shared network. The first client opens it, the last one closes it; it may be opened again."""
        key = path, repr(sorted((shapes or {}).items()))
        with self._opening:
            before = self._shared.get(key)
            client = before.client() if before is not None else None
            if client is not None:
                return client
            together = path in self.unets
            most, patience_s = (self.batch, self.patience_s) if together else (1, 0.0)
            self._shared[key] = shared = SharedEngine(super().open(path, shapes), most, patience_s)
            if before is not None:  # the counts of the closed network continue
                shared.calls, shared.rows = before.calls, before.rows
            client = shared.client()
            assert client is not None, "a network that has just been opened is open"
            return client

    def calls(self) -> dict[str, dict[str, int]]:
        """Calls and rows of each network so far."""
        return {network_name(path): {"calls": s.calls, "rows": s.rows} for (path, _), s in self._shared.items()}


def shapes_of(about: BundleFile, network: str, size: tuple[int, int], rows: int, device: str) -> Shapes | None:
    """Input shapes of a bundle's network, by input name.

    size  (width, height) of the pictures
    rows  rows of a UNet call

    None on a CPU, where a network takes any size and number of rows, and for a bundle whose files have a fixed size.
    """
    if device == "cpu" or about.size is not None:
        return None
    width, height = size
    latent = (about.latent.channels, height // about.latent.downscale, width // about.latent.downscale)
    if network in ("encoder", "encoder_past"):
        return {"rgb": (1, 3, height, width)}
    if network == "decoder":
        return {"latent": (1, *latent)}
    width_of_style = len(next(iter(about.styles.values())).vector)
    if network == "lines":
        return {"rgb": (1, 3, height, width), "latent": (1, *latent), "style": (1, width_of_style)}
    source = {"source": (rows, *latent)} if about.takes_source else {}
    return {"x": (rows, *latent), "level": (rows, 2), "style": (rows, width_of_style), **source}


def flow_shapes(about: FlowBundleFile, size: tuple[int, int], long_side: int | None) -> Shapes | None:
    """Input shapes of a flow network for frames of `size` (width, height), by input name.

    The frames' size, scaled down until the longer side is `long_side` and rounded to sizes that the network takes.
    None for a bundle whose file has a fixed size.
    """
    return None if about.sizes is None else dict.fromkeys(("cur", "prev"), _picture_shape(about.sizes, size, long_side))


def map_shapes(about: MapBundleFile, size: tuple[int, int]) -> Shapes | None:
    """As `flow_shapes`, for the network of a map. The bundle gives the longer side."""
    return None if about.sizes is None else {"rgb": _picture_shape(about.sizes, size, about.sizes.default_long_side)}


def _picture_shape(sizes: Sizes, size: tuple[int, int], long_side: int | None) -> tuple[int, int, int, int]:
    scale = min(1.0, (long_side or max(size)) / max(size))
    width, height = (max(sizes.minimum, round(side * scale / sizes.multiple) * sizes.multiple) for side in size)
    return 1, 3, height, width
