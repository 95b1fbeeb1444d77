"""Early checks of a configuration, before a network library is loaded, which takes seconds.

Opening the run repeats them, together with the checks that need an opened bundle.
"""

from warpfuse.engine.bundle import require_kind
from warpfuse.engine.bundle_file import BundleFile, FlowBundleFile, MapBundleFile
from warpfuse.engine.errors import BundleError
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import DIS, FLOW_BUNDLES, GraphConfig
from warpfuse.graph.plan.cues import check_cues
from warpfuse.graph.plan.midi_keys import check_map
from warpfuse.graph.plan.sizing import size_of
from warpfuse.graph.plan.streams import Streams, of_stream
from warpfuse.stages.controls.settings import NetworkMapSettings, check_controls
from warpfuse.stages.diffusion.loras import lora_scales
from warpfuse.stages.diffusion.settings import check_attention, check_cache
from warpfuse.stages.diffusion.style_images import check_images, check_pictures
from warpfuse.stages.diffusion.styles import style_weights
from warpfuse.stages.errors import MaskError
from warpfuse.stages.hooks.hooks_file import functions_of
from warpfuse.stages.masking.drawing import check_file
from warpfuse.stages.motion.keyframe_file import check_keyframe
from warpfuse.stages.sinks import check, check_alpha
from warpfuse.stages.sources import connects, probe
from warpfuse.stages.sources.schemes import scheme_of

_PROBED = ("file", "pattern")  # other sources are slow to open, and some accept a single connection


def check_early(
    config: GraphConfig | Streams, *, watched: bool = False, was: GraphConfig | Streams | None = None
) -> None:
    """Raise BadInput for a source, sink, bundle, style, LoRA, control, image, attention, mask, flow or size that fails.

    watched  the run has a viewer, so it needs no sink
    was      a configuration that is known to work and may be running: only what differs from it is checked

    Files are opened for this, connections and devices are not.
    """
    if not isinstance(config, Streams):
        _check_one(config, watched, was if isinstance(was, GraphConfig) else None)
        return
    before = was.configs if isinstance(was, Streams) else {}
    for name, one in config.configs.items():
        with of_stream(name):
            _check_one(one, watched, before.get(name))


def check_ends(config: GraphConfig, *, watched: bool = False, was: GraphConfig | None = None) -> None:
    """Raise BadInput for a missing source, a missing sink without a viewer, or a sink that cannot be opened.

    was  the running configuration: its sinks are open already and are not checked
    """
    if not config.source:
        raise ConfigError("no source: give --source PATH, or source: in the graph file")
    if not config.sinks and not watched:
        if scheme_of(config.source) == "file" and not connects(config.source):
            probe(config.source)  # a mistyped name is told before the sink that it would have had
        raise ConfigError("no sink: give --sink PATH, or sinks: in the graph file")
    for sink in config.sinks:
        if was is None or sink not in was.sinks:
            check(sink, source=config.source)
        if config.mask.transparent:
            check_alpha(sink)


def _check_one(config: GraphConfig, watched: bool, was: GraphConfig | None) -> None:
    _check_own(config, watched, was)
    check_cues(config, lambda cue: _check_own(cue, watched, config))


def _check_own(config: GraphConfig, watched: bool, was: GraphConfig | None) -> None:
    def differs(*keys: str) -> bool:
        return was is None or any(getattr(config, key) != getattr(was, key) for key in keys)

    if differs("source", "sinks", "mask"):
        check_ends(config, watched=watched, was=was)
    if differs("flow") and config.flow != DIS:
        require_kind(FLOW_BUNDLES.get(config.flow, config.flow), FlowBundleFile)
    if differs("hooks") and config.hooks:
        functions_of(config.hooks)
    if differs("mask"):
        _check_mask(config)
    if differs("midi"):
        check_map(config.midi)
    if differs("stages"):
        check_keyframe(config.stages.anchor)
    if differs("controls"):
        for control in config.controls.values():
            if isinstance(control, NetworkMapSettings):
                require_kind(control.of, MapBundleFile)
    if differs(
        "bundle", "prompt", "negative", "loras", "controls", "images", "stages", "source", "size", "output", "rotate"
    ):
        about = require_kind(config.bundle, BundleFile)
        _check_prompts(config, about)
        if differs("images"):
            check_pictures(config.images)
        if differs("bundle", "source", "size", "output", "rotate"):
            _check_size(config, about)


def _check_prompts(config: GraphConfig, about: BundleFile) -> None:
    if about.text is None:
        for prompt in filter(None, (config.prompt, config.negative)):
            style_weights(prompt, about.styles, about.default_style)
    lora_scales(config.loras, about.loras)
    check_controls(config.controls, about.controls)
    check_images(config.images, about.images)
    check_attention(config.stages.predict.attention, about.attention is not None)
    check_cache(config.stages.predict.cache_deep, about.splits)


def _check_size(config: GraphConfig, about: BundleFile) -> None:
    # `connects` refuses an unknown kind
    if config.source and not connects(config.source) and scheme_of(config.source) in _PROBED:
        info = probe(config.source)
        size_of(config, (info.width, info.height), about.sizes, about.size)


def _check_mask(config: GraphConfig) -> None:
    match config.mask.kind:
        case "network":
            require_kind(config.mask.of, MapBundleFile)
        case "map" if config.mask.of not in config.controls:
            _check_map(config)
        case "file":
            check_file(config.mask.of)


def _check_map(config: GraphConfig) -> None:
    """Raise MaskError if `mask.of` names neither a control of the run nor a bundle of kind `map`."""
    try:
        require_kind(config.mask.of, MapBundleFile)
    except BundleError as error:
        controls = ", ".join(sorted(config.controls)) or "none"
        raise MaskError(
            f"mask.of: no control of this run is called {config.mask.of!r} (it has: {controls}); {error}"
        ) from None
