"""The clip that ships with the package."""

from importlib import resources
from pathlib import Path

CLIP = Path(str(resources.files("warpfuse") / "clips" / "demo.mp4"))
"""132 frames of Big Buck Bunny, (c) Blender Foundation, CC BY 3.0."""
