"""A bundle: a folder with `bundle.json` and the exported networks it names.

A bundle may come from an untrusted source. Nothing in it is executed or unpickled, no file name in it may point outside
the folder, and every file is checked against its sha256 before a network is opened.
"""

import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Literal, TypeVar, get_args

import platformdirs
from pydantic import ValidationError

from warpfuse.engine.bundle_file import (
    ANY,
    AutoencoderBundleFile,
    BundleFile,
    Described,
    DescribedKind,
    FlowBundleFile,
    MapBundleFile,
    NetworkName,
)
from warpfuse.engine.errors import BundleError
from warpfuse.engine.precision import Precision

FORMAT = 1
DESCRIPTION = "bundle.json"
PLANS = "plans"  # folder of a bundle; see engine/brought_plans.py
_KINDS = ("latent-diffusion", "flow", "autoencoder", "map")

D = TypeVar("D", bound=Described)


class Bundle:
    """A verified diffusion bundle: its folder, its description, and the precision of the networks to use."""

    def __init__(self, folder: Path, about: BundleFile, precision: Precision = "float") -> None:
        self.folder = folder
        self.about = about
        self.precision = precision

    def in_precision(self, precision: Precision) -> "Bundle":
        """The same bundle with another precision. "int8" selects the 8-bit networks it has; BundleError if none."""
        if precision == "int8" and not self.about.int8:
            raise BundleError(f"bundle {self.folder} has no network in 8-bit integers. Copy the whole bundle here")
        return Bundle(self.folder, self.about, precision)

    def network(self, kind: NetworkName) -> Path:
        """Path of an exported network. Raises BundleError if the bundle has none of that kind."""
        if kind not in self.about.networks:
            why = {
                "text": "it is prompted by the names of its styles",
                "lines": "it draws no lines",
                "unet_shallow": "its UNet is not split",
            }.get(kind, "it does not list one")
            raise BundleError(f"bundle {self.folder} has no network {kind!r}: {why}")
        file = self.about.networks[kind]
        if self.precision == "int8" and kind == "unet":
            file = self.about.int8.get(kind, file)
        return self.folder / file

    def tokenizer(self, name: Literal["tokens", "tokens_2"] = "tokens") -> Path:
        """Path of the tokenizer for an input of the text network. Raises BundleError if there is no such input."""
        text = self.about.text
        if text is None or name not in text.inputs:
            raise BundleError(f"bundle {self.folder} has no tokenizer for {name!r}")
        return self.folder / text.inputs[name].tokenizer


class FlowBundle:
    """A verified flow bundle: its folder and its description."""

    def __init__(self, folder: Path, about: FlowBundleFile) -> None:
        self.folder = folder
        self.about = about

    def network(self) -> Path:
        """Path of the exported network."""
        return self.folder / self.about.networks["flow"]


class AutoencoderBundle:
    """A verified autoencoder: its folder and its description."""

    def __init__(self, folder: Path, about: AutoencoderBundleFile) -> None:
        self.folder = folder
        self.about = about

    def network(self, kind: Literal["encoder", "decoder"]) -> Path:
        """Path of the exported `encoder` or `decoder`."""
        return self.folder / self.about.networks[kind]


class MapBundle:
    """A verified bundle of a network from pictures to maps: its folder and its description."""

    def __init__(self, folder: Path, about: MapBundleFile) -> None:
        self.folder = folder
        self.about = about

    def network(self) -> Path:
        """Path of the exported network."""
        return self.folder / self.about.networks["map"]


def shipped_bundles() -> Path:
    """The folder of the bundles inside the package."""
    return Path(str(resources.files("warpfuse.engine") / "bundles"))


def bundle_folders() -> list[Path]:
    """Folders searched for bundles by name, in this order: $WARPFUSE_BUNDLES, the user's folder, the package."""
    named = [Path(part) for part in os.environ.get("WARPFUSE_BUNDLES", "").split(os.pathsep) if part]
    return [*named, Path(platformdirs.user_data_dir("warpfuse")) / "bundles", shipped_bundles()]


def find_bundles() -> dict[str, Path]:
    """Every bundle that can be opened by name. If several folders have a name, the first one counts."""
    found: dict[str, Path] = {}
    for folder in bundle_folders():
        if folder.is_dir():
            for candidate in sorted(folder.iterdir()):
                if (candidate / DESCRIPTION).is_file():
                    found.setdefault(candidate.name, candidate)
    return found


def load_bundle(name: str) -> Bundle:
    """Open a diffusion bundle by name or folder, and verify its description and the sha256 of every file.

    Raises BundleError if there is no such bundle, it is of another kind, its description is invalid, or a file is
    missing or changed.
    """
    return Bundle(*_load(name, BundleFile))


def load_flow_bundle(name: str) -> FlowBundle:
    """Open a flow bundle by name or folder, verified as by `load_bundle`. Raises BundleError."""
    return FlowBundle(*_load(name, FlowBundleFile))


def load_autoencoder_bundle(name: str) -> AutoencoderBundle:
    """Open an autoencoder by name or folder, verified as by `load_bundle`. Raises BundleError."""
    return AutoencoderBundle(*_load(name, AutoencoderBundleFile))


def load_map_bundle(name: str) -> MapBundle:
    """Open a bundle of kind map by name or folder, verified as by `load_bundle`. Raises BundleError."""
    return MapBundle(*_load(name, MapBundleFile))


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate_bundle(name: str) -> Path:
    """The folder of a bundle, by name or folder. Raises BundleError if there is none."""
    if os.sep in name or name in (".", ".."):
        folder = Path(name).expanduser()
        if not (folder / DESCRIPTION).is_file():
            raise BundleError(f"{folder} is not a bundle: no {DESCRIPTION} in it")
        return folder
    known = find_bundles()
    if name in known:
        return known[name]
    if (Path(name) / DESCRIPTION).is_file():
        return Path(name)
    raise BundleError(f"no bundle called {name!r}. Known: {', '.join(known) or 'none'}; or give a folder")


def describe_bundle(name: str) -> DescribedKind:
    """The description of a bundle of any kind, by name or folder. Its files are not checked. Raises BundleError."""
    return read_description(locate_bundle(name))


def read_description(folder: Path) -> DescribedKind:
    """The description of the bundle in `folder`, of any kind. Its files are not checked. Raises BundleError."""
    path = folder / DESCRIPTION
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}. Copy or export the bundle again") from None
    version = raw.get("format") if isinstance(raw, dict) else None
    if version != FORMAT:
        raise BundleError(f"{path}: format {version!r}, this warpfuse reads format {FORMAT}. Export it again")
    try:
        return ANY.validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise BundleError(f"{path}: {first_fault(error)}") from None


def require_kind(name: str, kind: type[D]) -> D:
    """As `describe_bundle`. Raises BundleError also for a bundle of another kind."""
    return _described(locate_bundle(name), kind)


def _load(name: str, kind: type[D]) -> tuple[Path, D]:
    """Folder and description of a bundle of this kind, after its files are verified."""
    folder = locate_bundle(name)
    about = _described(folder, kind)
    _verify(folder, about)
    return folder, about


def _described(folder: Path, kind: type[D]) -> D:
    about = read_description(folder)
    if not isinstance(about, kind):
        (needed,) = get_args(kind.model_fields["kind"].annotation)
        raise BundleError(
            f"bundle {folder} is of kind {about.kind!r}, needed here is one of kind {needed!r}. Give another bundle"
        )
    return about


def _verify(folder: Path, about: Described) -> None:
    # A development install links every file of the package, so the folder is where the description's link leads.
    root = (folder / DESCRIPTION).resolve().parent
    for file, expected in about.files.items():
        path = folder / file
        if not path.is_file():
            raise BundleError(f"bundle {folder}: {file} is missing. Copy or export the bundle again")
        if not path.resolve().is_relative_to(root):
            raise BundleError(f"bundle {folder}: {file} is a link to outside the bundle. Replace it by the file")
        found = sha256_of(path)
        if found != expected:
            raise BundleError(
                f"bundle {folder}: {file} is torn or changed: sha256 is {found[:12]}..., {DESCRIPTION} says "
                f"{expected[:12]}.... Copy or export the bundle again"
            )


def first_fault(error: ValidationError) -> str:
    """The first error, with its key, on one line."""
    detail = error.errors()[0]
    path = [str(part) for part in detail["loc"]]
    if path[:1] and path[0] in _KINDS:  # pydantic puts the kind before the key; it tells the user nothing
        path = path[1:]
    return f"{'.'.join(path)}: {detail['msg']}" if path else str(detail["msg"])
