"""Run one network on one device: the `Engine` contract, its backends, and the bundles the networks come in."""

from warpfuse.engine.bundle import Bundle, load_bundle
from warpfuse.engine.contract import Engine, TensorSpec
from warpfuse.engine.open import open_engine

__all__ = ["Bundle", "Engine", "TensorSpec", "load_bundle", "open_engine"]
