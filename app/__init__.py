"""warpfuse: live video restyled with diffusion models, with a style that stays on the things in the picture.

import warpfuse

stats = warpfuse.run({"source": "in.mp4", "sinks": ["out.mp4"], "prompt": "ink"})

with warpfuse.Pipeline(prompt="ink", size=(512, 288)) as pipeline:
    styled = pipeline.push(picture)        # uint8 [h, w, 3] in, the same out
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warpfuse.engine.errors import BackendMissing, BadInput, BundleError, EngineError, WarpfuseError
from warpfuse.graph.errors import ConfigError, KeysMissing, StageFailed
from warpfuse.stages.errors import (
    LoraError,
    SinkError,
    SinkLost,
    SourceError,
    SourceLost,
    Stopped,
    StreamLost,
    StyleError,
)
from warpfuse.version import __version__

if TYPE_CHECKING:
    from warpfuse.graph.metrics.meters import Stats
    from warpfuse.graph.pipeline import Pipeline

__all__ = [
    "BackendMissing",
    "BadInput",
    "BundleError",
    "ConfigError",
    "EngineError",
    "KeysMissing",
    "LoraError",
    "Pipeline",
    "SinkError",
    "SinkLost",
    "SourceError",
    "SourceLost",
    "StageFailed",
    "Stats",
    "Stopped",
    "StreamLost",
    "StyleError",
    "WarpfuseError",
    "__version__",
    "run",
]


def run(graph: "str | Path | Mapping[str, Any]") -> "Stats":
    """Run a graph to the end of its source: a YAML file, or the same keys as a mapping; of all sources with `streams`.

    Raises WarpfuseError: BadInput before anything is written, StreamLost or StageFailed when the run broke off.
    """
    from warpfuse.graph.plan.checks import check_early
    from warpfuse.graph.plan.config import GraphConfig, validate
    from warpfuse.graph.plan.raw_keys import read_graph_file
    from warpfuse.graph.plan.streams import Streams, is_of_several, read_streams

    raw, where = (dict(graph), "") if isinstance(graph, Mapping) else (read_graph_file(Path(graph)), str(graph))
    config: GraphConfig | Streams = read_streams(raw, where) if is_of_several(raw) else validate(raw, where)
    check_early(config)
    from warpfuse.graph.run import run as run_graph

    return run_graph(config)


def __getattr__(name: str) -> Any:
    """`Pipeline` and `Stats` on first use: importing any part of the package must not load all of it."""
    if name == "Pipeline":
        from warpfuse.graph.pipeline import Pipeline

        return Pipeline
    if name == "Stats":
        from warpfuse.graph.metrics.meters import Stats

        return Stats
    raise AttributeError(f"module 'warpfuse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
