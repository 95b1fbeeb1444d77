"""TensorRT plans of the networks of a bundle, in a folder of the bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from warpfuse.engine import device
from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.tensorrt_build import plan_for, plan_key
from warpfuse.engine.tensorrt_engine import TensorRtEngine
from warpfuse.engine.tensorrt_module import Flavour, capability, missing

from .targets import Targets

Feeds = Mapping[Path, Mapping[str, Tensor]]
CARD = "cuda:0"


def build_plans(folder: Path, networks: Sequence[Path], targets: Targets, say: Callable[[str], None]) -> Path | None:
    """Build a plan of every network for every card in `targets`, in `folder`. Returns None if there are no cards.

    Networks have static shapes. A plan for the card of this machine is also put into the user's cache, where it is
    trusted; one in a bundle is not (engine/brought_plans.py).

    Raises EngineError: a network cannot be built.
    """
    cache = ArtifactCache(folder)
    for flavour, gpu in targets.plans():
        for network in networks:
            began = time.perf_counter()
            plan = plan_for(flavour, network, None, gpu, cache)
            seconds, size = time.perf_counter() - began, plan.stat().st_size / 1e6
            say(f"{network.stem}: {flavour.backend} plan for {gpu}, {size:.1f} MB in {seconds:.0f} s")
            if _is_here(flavour, gpu):
                ArtifactCache().adopt(plan_key(flavour, network, None, gpu), plan)
    cache.forget_locks()
    return folder if targets.plans() else None


def run_plan(
    folder: Path, network: Path, flavour: Flavour, gpu: str, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """The outputs of the plan of a network for `inputs`, on the host; None if this machine lacks the card."""
    if not _is_here(flavour, gpu):
        return None
    plan = ArtifactCache(folder).find(plan_key(flavour, network, None, gpu))
    assert plan is not None, "it was built a moment ago"
    with device.selected(CARD):
        engine = TensorRtEngine(flavour, network.name, plan, CARD, None)
        try:
            stream = device.new_stream(CARD)
            with device.issuing_to(stream):
                fed = {name: tensor.to(CARD) for name, tensor in inputs.items()}
                return {name: tensor.cpu() for name, tensor in engine(fed).items()}
        finally:
            engine.close()


def _is_here(flavour: Flavour, gpu: str) -> bool:
    return device.count() > 0 and missing(flavour, CARD) is None and gpu.endswith(capability(CARD))
