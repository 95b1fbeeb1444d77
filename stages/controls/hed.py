"""The map of HED's ControlNets: soft edges, by the network that ships and was taught by HED (bundle `soft-edges`)."""

from warpfuse.stages.controls.network import open

__all__ = ["open"]
