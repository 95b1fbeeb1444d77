"""The networks of a run: opened by its backend at its size, and replaced by a faster one once that is built."""

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
    """Opens networks.

    backend    what they run on, at first
    threads    cores they may use on a CPU
    upgrade    the backend that is built meanwhile and takes over, None for none
    say        told when a network changes its backend, or does not and why

    Those who asked close what they got; `close` stops what is still being built.
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
        """A network, for one size where `shapes` gives it. Raises BackendMissing, EngineError."""
        engine = open_engine(path, self.backend, self.device, threads=self.threads, shapes=shapes)
        if self.upgrade is not None:
            coming = self.builds.order(Order(path, self.upgrade, self.device, shapes))
            engine = SwappingEngine(engine, coming, lambda line: self.say(f"{network_name(path)}: {line}"))
        self._opened.append(engine)
        return engine

    @property
    def in_use(self) -> str:
        """The backend of every network: the one, or all of them, as in "onnxruntime+tensorrt-rtx"."""
        return "+".join(sorted({engine.backend for engine in self._opened})) or self.backend

    def close(self) -> None:
        """Stop building."""
        self.builds.close()


@dataclass
class SharedEngines(Engines):
    """Opens every network once for several streams, which call it in turns, and the UNet with their rows together.

    unet   the network that takes rows of several streams at once: at the size of a picture, where encoder and decoder
           work, more rows a call gain nothing
    batch  rows of several streams in one call at most; none: as many as there are
    patience_s  how long such a call may wait for streams that are about to ask
    """

    unet: Path = Path()
    batch: int | None = None
    patience_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._opening = threading.Lock()
        self._shared: dict[tuple[Path, str], SharedEngine] = {}

    def open(self, path: Path, shapes: Shapes | None = None) -> Engine:
        """A client of a network, which the first opens and the last closes; after that it is opened anew."""
        key = path, repr(sorted((shapes or {}).items()))
        with self._opening:
            before = self._shared.get(key)
            client = before.client() if before is not None else None
            if client is not None:
                return client
            together = path == self.unet
            most, patience_s = (self.batch, self.patience_s) if together else (1, 0.0)
            self._shared[key] = shared = SharedEngine(super().open(path, shapes), most, patience_s)
            if before is not None:  # what was asked of it counts
                shared.calls, shared.rows = before.calls, before.rows
            client = shared.client()
            assert client is not None, "a network that has just been opened is open"
            return client

    def calls(self) -> dict[str, dict[str, int]]:
        """How often each network was called, and for how many rows."""
        return {network_name(path): {"calls": s.calls, "rows": s.rows} for (path, _), s in self._shared.items()}


def shapes_of(about: BundleFile, network: str, size: tuple[int, int], rows: int, device: str) -> Shapes | None:
    """input -> shape of a bundle's network at (width, height) and for so many rows of the UNet.

    None on a CPU, where a network takes any size and number of rows without being built for it, and for a bundle whose
    files have one size and say it themselves.
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
    """input -> shape of a flow network for frames of (width, height): their own size, the longer side brought down to
    `long_side`, rounded to what the network takes. None for a bundle whose file has one size and says it itself.
    """
    return None if about.sizes is None else dict.fromkeys(("cur", "prev"), _picture_shape(about.sizes, size, long_side))


def map_shapes(about: MapBundleFile, size: tuple[int, int]) -> Shapes | None:
    """The same of a network of a map, whose longer side is the bundle's own at most."""
    return None if about.sizes is None else {"rgb": _picture_shape(about.sizes, size, about.sizes.default_long_side)}


def _picture_shape(sizes: Sizes, size: tuple[int, int], long_side: int | None) -> tuple[int, int, int, int]:
    scale = min(1.0, (long_side or max(size)) / max(size))
    width, height = (max(sizes.minimum, round(side * scale / sizes.multiple) * sizes.multiple) for side in size)
    return 1, 3, height, width
