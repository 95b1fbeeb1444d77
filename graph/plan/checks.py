"""What of a configuration can be found wrong before a network library is loaded, which takes seconds.

Opening the run finds it too, with what can be known only then.
"""

from warpfuse.engine.bundle import describe_bundle
from warpfuse.engine.bundle_file import BundleFile
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.sizing import choose_size
from warpfuse.graph.plan.streams import Streams, of_stream
from warpfuse.stages.diffusion.loras import lora_scales
from warpfuse.stages.diffusion.settings import check_attention
from warpfuse.stages.diffusion.styles import style_weights
from warpfuse.stages.sinks import check
from warpfuse.stages.sources import connects, probe
from warpfuse.stages.sources.schemes import scheme_of

_PROBED = ("file", "pattern")  # others are devices, which take their time and may be opened but once


def check_early(config: GraphConfig | Streams, *, watched: bool = False) -> None:
    """Raise BadInput for ends, bundle, style, LoRA, attention or size that cannot be used, in any of the streams.

    watched  somebody looks at the run, so it needs no sink
    Files are opened, connections and devices are not.
    """
    if not isinstance(config, Streams):
        _check_one(config, watched)
        return
    for name, one in config.configs.items():
        with of_stream(name):
            _check_one(one, watched)


def check_ends(config: GraphConfig, *, watched: bool = False) -> None:
    """Raise BadInput where there is no source, no sink and nobody who watches, or a sink that cannot be opened."""
    if not config.source:
        raise ConfigError("no source: give --source PATH, or source: in the graph file")
    if not config.sinks and not watched:
        raise ConfigError("no sink: give --sink PATH, or sinks: in the graph file")
    for sink in config.sinks:
        check(sink, source=config.source)


def _check_one(config: GraphConfig, watched: bool) -> None:
    check_ends(config, watched=watched)
    about = describe_bundle(config.bundle)
    if not isinstance(about, BundleFile):  # opening it tells which kind is needed
        return
    if about.text is None:
        for prompt in filter(None, (config.prompt, config.negative)):
            style_weights(prompt, about.styles, about.default_style)
    lora_scales(config.loras, about.loras)
    check_attention(config.stages.predict.attention, about.attention is not None)
    if not connects(config.source) and scheme_of(config.source) in _PROBED:  # `connects` refuses an unknown kind
        info = probe(config.source)
        choose_size(config.size, (info.width, info.height), about.sizes, about.size)
