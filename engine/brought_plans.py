"""Plans that come with a bundle, in its folder `plans/`: made where the bundle was exported, for the card it runs on.

A plan is native code. NVIDIA says of an engine from an untrusted source that opening it is running its maker's program,
on the card and on the host; a library inside it has been seen to run in spite of `engine_host_code_allowed` being off.
Nothing in the file can be checked, and its description guards against torn files alone, for whoever writes the one
writes the other. So the plans of a bundle are opened only where the user said so: when its folder is one of those in
$WARPFUSE_TRUSTED_PLANS, or below one. Otherwise they are passed over, which is told, and the plan is built here.
"""

import logging
import os
from pathlib import Path

from warpfuse.engine.artifacts import ArtifactCache, ArtifactKey
from warpfuse.engine.bundle import PLANS

TRUSTED = "WARPFUSE_TRUSTED_PLANS"
_log = logging.getLogger(__name__)


def brought_plan(network: Path, key: ArtifactKey) -> Path | None:
    """The plan of this key beside a network, or None: there is none that fits, or it is not trusted. Writes nothing."""
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
