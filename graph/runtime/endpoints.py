"""How a graph gets at its source and its sinks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from warpfuse.graph.runtime.tap import Tap
from warpfuse.stages.stage import Sink, Source


@dataclass(frozen=True, slots=True)
class Ends:
    """How a worker opens the source and the sinks, if it runs them.

    source  a source from its beginning
    sink    the sink of a URL
    live    the source cannot wait
    rewind  the source can be opened again, to read what was lost
    taps    kind of stage, or "source" -> who looks at what it gives
    """

    source: Callable[[], Source]
    sink: Callable[[str], Sink]
    live: bool = False
    rewind: bool = True
    taps: Mapping[str, Tap] = field(default_factory=dict)
