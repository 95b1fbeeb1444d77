"""Run one network on one device: the `Engine` contract, its backends, and the bundles the networks come in."""

from warpfuse.engine.bundle import Bundle, FlowBundle, load_bundle, load_flow_bundle
from warpfuse.engine.contract import Engine, TensorSpec
from warpfuse.engine.open import open_engine

__all__ = ["Bundle", "Engine", "FlowBundle", "TensorSpec", "load_bundle", "load_flow_bundle", "open_engine"]
