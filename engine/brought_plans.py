"""Plans that come with a bundle, in its folder `plans/`. They were built by the exporter for a kind of card.

A plan is native code. By NVIDIA's documentation, opening an engine from an untrusted source means running its maker's
program on the card and on the host. A library inside one has been seen to run although `engine_host_code_allowed` was
off. Nothing in the file can be checked. Its description only detects incomplete files, because the maker of the plan
writes that too. So the plans of a bundle are opened only if its folder is named in $WARPFUSE_TRUSTED_PLANS, or is
inside one that is. Otherwise they are ignored with a warning, and the plan is built here.
"""

import logging
import os
from pathlib import Path

from warpfuse.engine.artifacts import ArtifactCache, ArtifactKey
from warpfuse.engine.bundle import PLANS

TRUSTED = "WARPFUSE_TRUSTED_PLANS"
_log = logging.getLogger(__name__)


def brought_plan(network: Path, key: ArtifactKey) -> Path | None:
    """The plan of this key beside a network; None if there is none, or if it is not trusted. Writes nothing."""
    folder = network.parent / PLANS
    plan = ArtifactCache(folder).find(key) if folder.is_dir() else None
    if plan is None or is_trusted(network.parent):
        return plan
    _log.warning(
        "%s: the plan that comes with the bundle is not opened, for a plan is a program; it is built here instead. "
        "If you know who made it: %s=%s",
        network.name, TRUSTED, network.parent.absolute(),
    )  # fmt: skip
    return None


def is_trusted(bundle: Path) -> bool:
    """Whether the user trusts the plans of the bundle in this folder."""
    named = [Path(part).expanduser().resolve() for part in os.environ.get(TRUSTED, "").split(os.pathsep) if part]
    return any(bundle.resolve().is_relative_to(folder) for folder in named)
