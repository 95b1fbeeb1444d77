"""A worker that a user starts by hand on another host than the run."""

from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.processes.worker_process import main, preload
from warpfuse.graph.runtime.remote_hosts import keys_for, line_to


def be_worker(config: GraphConfig, name: str) -> int:
    """Connect to the run's host and work as this worker until the end. Returns the exit code. Raises BadInput."""
    endpoint, keys = line_to(config, name), keys_for(config)
    preload()
    return main(endpoint, name, keys)
