"""The bundles that a node offers."""

from warpfuse.engine.bundle import find_bundles, read_description
from warpfuse.engine.bundle_file import BundleFile
from warpfuse.engine.errors import BundleError


def diffusion_bundles() -> list[str]:
    """Names of the bundles that style pictures. Unreadable ones are left out."""
    found = []
    for name, folder in find_bundles().items():
        try:
            if isinstance(read_description(folder), BundleFile):
                found.append(name)
        except BundleError:
            continue
    return found
