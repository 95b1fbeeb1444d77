"""Build a TensorRT plan for one size from an ONNX file. The plan is strongly typed: the ONNX graph sets the types."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from warpfuse.engine.artifacts import ArtifactCache, ArtifactKey, network_hash
from warpfuse.engine.errors import EngineError
from warpfuse.engine.feed import Shapes
from warpfuse.engine.files import write_whole
from warpfuse.engine.tensorrt_module import Flavour, check_capability, complaints, load, version

TIMING_ITERATIONS = 4
"""Runs over which a kernel is timed. With one run, plans of the same network differ by several per cent in speed."""


def plan_key(flavour: Flavour, network: Path, shapes: Shapes | None, gpu: str) -> ArtifactKey:
    """The key of a network's plan, in the user's cache and in a bundle.

    shapes  input name -> shape, for every input with an axis of any length
    gpu     a compute capability ("sm89") for a module that builds ahead of time; else the card's name and capability

    Raises BackendMissing.
    """
    return ArtifactKey(
        network=network_hash(network),
        inputs=tuple((name, tuple(shape)) for name, shape in sorted((shapes or {}).items())),
        dtype="as exported",
        backend=flavour.backend,
        version=version(flavour),
        gpu=gpu,
        options=(
            ("timing_iterations", str(TIMING_ITERATIONS)),
            ("tf32", "0"),
            *((("user_allocation", "1"),) if flavour.ahead else ()),
        ),
    )


def plan_for(
    flavour: Flavour, network: Path, shapes: Shapes | None, gpu: str, cache: ArtifactCache, *, beside: bool = False
) -> Path:
    """The plan of a network for one size, from the cache; built if it is not there. Arguments: see `plan_key`.

    beside  something else uses the card during the build, so kernels are timed wrongly. Such a plan is kept apart and
            its timings are not kept: it is taken only until one is built with the card to itself

    Raises BackendMissing, or EngineError if the network cannot be read or built.
    """
    if flavour.ahead:
        check_capability(flavour, gpu)
    key = plan_key(flavour, network, shapes, gpu)
    disturbed = beside and not flavour.ahead and cache.find(key) is None
    if disturbed:
        key = replace(key, options=(*key.options, ("beside", "1")))
    return cache.get(key, lambda path: _build(flavour, network, dict(key.inputs), gpu, cache, path, disturbed))


def kept_beside(cache: ArtifactCache, what: str, *of: str) -> Path:
    """Path of a cache whose contents TensorRT checks itself (timing, runtime). Each set of `of` has its own."""
    return cache.folder / f"{what}-{hashlib.sha256(repr(of).encode()).hexdigest()[:16]}.bin"


def _build(
    flavour: Flavour,
    path: Path,
    sizes: dict[str, tuple[int, ...]],
    gpu: str,
    cache: ArtifactCache,
    into: Path,
    disturbed: bool,
) -> None:
    trt, log = load(flavour), complaints(flavour)
    log.take()
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    # Parse the file, not its bytes: weights above 2 GB are in a second file, which is found by the path.
    if not parser.parse_from_file(str(path)):
        raise EngineError(f"{path.name} cannot be read by {flavour.backend}: {_parse_error(parser)}")
    if not network.num_layers or not network.num_outputs:
        raise EngineError(f"{path.name} holds no network: {network.num_layers} layers. Export the bundle again")
    config = builder.create_builder_config()
    config.add_optimization_profile(_profile(builder, network, path.name, sizes))
    config.clear_flag(trt.BuilderFlag.TF32)  # single precision is meant where a graph has it
    timing = None
    if flavour.ahead:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # or the plan may not be captured in a CUDA graph
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, gpu.upper()), 0)
    else:
        config.avg_timing_iterations = TIMING_ITERATIONS
        timing = kept_beside(cache, "timing", flavour.backend, version(flavour), gpu)
        config.set_timing_cache(config.create_timing_cache(timing.read_bytes() if timing.is_file() else b""), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{path.name} cannot be built by {flavour.backend}: {log.take() or 'it gives no reason'}")
    into.write_bytes(memoryview(plan))
    if timing is not None and not disturbed:
        write_whole(timing, bytes(config.get_timing_cache().serialize()))


def _profile(builder: Any, network: Any, name: str, sizes: dict[str, tuple[int, ...]]) -> Any:
    """A profile whose smallest, usual and largest size are the same: its plan is smaller and faster than others."""
    profile = builder.create_optimization_profile()
    inputs = {tensor.name: tuple(tensor.shape) for tensor in (network.get_input(i) for i in range(network.num_inputs))}
    unknown = sizes.keys() - inputs.keys()
    if unknown:
        raise EngineError(
            f"{name}: takes {', '.join(sorted(inputs))}, a shape is given for {', '.join(sorted(unknown))}"
        )
    for tensor, built in inputs.items():
        size = sizes.get(tensor, built)
        if -1 in size:
            any_axis = "[" + ", ".join("?" if n < 0 else str(n) for n in built) + "]"
            raise EngineError(f"{name}: input '{tensor}' is {any_axis}: give open_engine shapes={{'{tensor}': (...)}}")
        if len(size) != len(built) or any(b not in (-1, n) for b, n in zip(built, size, strict=True)):
            raise EngineError(
                f"{name}: input '{tensor}' was exported as {list(built)}, it is to be built as {list(size)}"
            )
        if -1 in built:
            profile.set_shape(tensor, size, size, size)
    return profile


def _parse_error(parser: Any) -> str:
    if not parser.num_errors:
        return "it gives no reason"
    error = parser.get_error(0)
    node = f" (node '{error.node_name()}', {error.node_operator()})" if error.node_name() else ""
    return " ".join(error.desc().split())[:250] + node
