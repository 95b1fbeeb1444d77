"""Write bundles, with the sha256 of every file. A bundle is written completely or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from warpfuse.engine.bundle import (
    DESCRIPTION,
    FORMAT,
    PLANS,
    AutoencoderBundle,
    Bundle,
    FlowBundle,
    MapBundle,
    first_fault,
    sha256_of,
)
from warpfuse.engine.bundle_file import AutoencoderBundleFile, BundleFile, Described, FlowBundleFile, MapBundleFile
from warpfuse.engine.errors import BundleError

D = TypeVar("D", bound=Described)


def write_bundle(folder: Path, files: Mapping[str, bytes | Path], *, plans: Path | None = None, **about: Any) -> Bundle:
    """Write a diffusion bundle to a temporary folder beside `folder`, then rename that to `folder`.

    files  name in the bundle -> contents, or the path of a file to move into the bundle. The file stays in its old
           place until the bundle is complete
    plans  a folder of plans to move in too (engine/brought_plans.py); they are not among the bundle's `files`
    about  the fields of `BundleFile` except `format` and `files`

    Raises BundleError if the fields are invalid, a file is missing, or `folder` is not a bundle and not empty.
    """
    description = _describe(BundleFile, folder, files, about)
    _write(folder, files, description, plans)
    return Bundle(folder, description)


def write_flow_bundle(
    folder: Path, files: Mapping[str, bytes | Path], *, plans: Path | None = None, **about: Any
) -> FlowBundle:
    """As `write_bundle`, for kind "flow". about: the fields of `FlowBundleFile` except `format`, `kind`, `files`."""
    description = _describe(FlowBundleFile, folder, files, {"kind": "flow", **about})
    _write(folder, files, description, plans)
    return FlowBundle(folder, description)


def write_autoencoder_bundle(
    folder: Path, files: Mapping[str, bytes | Path], *, plans: Path | None = None, **about: Any
) -> AutoencoderBundle:
    """As `write_bundle`, for kind "autoencoder". about: `AutoencoderBundleFile` except `format`, `kind`, `files`."""
    description = _describe(AutoencoderBundleFile, folder, files, {"kind": "autoencoder", **about})
    _write(folder, files, description, plans)
    return AutoencoderBundle(folder, description)


def write_map_bundle(
    folder: Path, files: Mapping[str, bytes | Path], *, plans: Path | None = None, **about: Any
) -> MapBundle:
    """As `write_bundle`, for kind "map". about: the fields of `MapBundleFile` except `format`, `kind`, `files`."""
    description = _describe(MapBundleFile, folder, files, {"kind": "map", **about})
    _write(folder, files, description, plans)
    return MapBundle(folder, description)


def check_place(folder: Path) -> None:
    """Raise BundleError unless `folder` does not exist, is empty, or is a bundle.

    Every `write_...` function calls this. An exporter that works for minutes calls it first, to fail early.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / DESCRIPTION).is_file() or not any(folder.iterdir()))):
        raise BundleError(f"{folder} exists and is not a bundle. Give another folder")


def _describe(kind: type[D], folder: Path, files: Mapping[str, bytes | Path], about: Mapping[str, Any]) -> D:
    for name, given in files.items():
        if isinstance(given, Path) and not given.is_file():
            raise BundleError(f"bundle {folder}: {name} is to be moved in from {given}, which is not a file")
    hashes = {
        name: sha256_of(given) if isinstance(given, Path) else hashlib.sha256(given).hexdigest()
        for name, given in files.items()
    }
    try:
        return kind.model_validate({"format": FORMAT, "files": hashes, **about})
    except ValidationError as error:
        raise BundleError(f"bundle {folder}: {first_fault(error)}") from None


def _write(folder: Path, files: Mapping[str, bytes | Path], description: Described, plans: Path | None) -> None:
    check_place(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        fresh = Path(temporary) / "new"
        fresh.mkdir()
        for name, given in files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(given, Path):
                _link_or_copy(given, path)
            else:
                path.write_bytes(given)
        (fresh / DESCRIPTION).write_text(json.dumps(description.model_dump(mode="json"), indent=1) + "\n")
        if plans is not None:
            shutil.move(plans, fresh / PLANS)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        fresh.rename(folder)
    for given in files.values():
        if isinstance(given, Path) and not given.resolve().is_relative_to(folder.resolve()):
            given.unlink()  # a file of the replaced bundle is gone already, and its path may be a new file's


def _link_or_copy(given: Path, path: Path) -> None:
    try:
        os.link(given.resolve(), path)
    except OSError:  # another file system, or one without links
        shutil.copyfile(given, path)
