"""Keys and addresses of a graph over several hosts."""

from pathlib import Path

from warpfuse.graph.errors import ConfigError, KeysMissing
from warpfuse.graph.links.curve import Keys
from warpfuse.graph.plan.config import GraphConfig


def keys_for(config: GraphConfig) -> Keys:
    """The keys of a graph over several hosts. Raises KeysMissing."""
    if not config.keys:
        raise KeysMissing("links between hosts are encrypted; make keys: warpfuse keys DIR, and name them: keys: DIR")
    return Keys(Path(config.keys).expanduser())


def far_workers(config: GraphConfig) -> list[str]:
    """Names of the workers that run on other hosts, in the order of the graph file."""
    places = config.workers if isinstance(config.workers, dict) else {}
    return [name for name, place in places.items() if place.host]


def line_to(config: GraphConfig, worker: str) -> str:
    """The address that a worker of another host connects to: `listen` with a port of its own. Raises ConfigError.

    The first such worker has the port after that of `listen`, the second the next one.
    """
    far = far_workers(config)
    if worker not in far:
        known = f"they are: {', '.join(far)}" if far else "the file has none with a host"
        raise ConfigError(f"worker {worker!r} is not one of another host; {known}")
    if not config.listen:
        raise ConfigError(f"workers.{worker}.host needs, at the top of the file, listen: tcp://ADDRESS:PORT")
    address, _, port = config.listen.rpartition(":")
    return f"{address}:{int(port) + 1 + far.index(worker)}"
