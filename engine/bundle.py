"""A bundle: a folder with `bundle.json` and the exported networks it names.

A bundle may come from a stranger. Nothing in it is executed or unpickled, no name in it leads outside the folder, and
every file is checked against its sha256 before a network is opened.
"""

import hashlib
import json
import os
import tempfile
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from warpfuse.engine.errors import BundleError

FORMAT = 1
DESCRIPTION = "bundle.json"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Schedule(_Part):
    """The noise levels the UNet was trained on: the betas of a variance-preserving process.

    zero_terminal_snr  the last level has no signal (the betas are rescaled to it)
    shift              of rectified-flow levels; they do not use the betas
    """

    schedule: Literal["scaled_linear", "linear", "cosine"]
    beta_start: float = Field(gt=0, lt=1)
    beta_end: float = Field(gt=0, lt=1)
    train_timesteps: int = Field(gt=0, le=100_000)
    zero_terminal_snr: bool = False
    shift: float = Field(1.0, gt=0)


class LatentSpace(_Part):
    """channels, pixels a latent cell is wide, and the factor from the encoder's output to what the UNet takes."""

    channels: int = Field(gt=0, le=1024)
    downscale: int = Field(gt=0, le=64)
    scale: float = Field(gt=0)


class Sizes(_Part):
    """Frame sizes in pixels the networks take: multiples of `multiple`, at least `minimum` each way."""

    multiple: int = Field(gt=0, le=1024)
    minimum: int = Field(gt=0)
    default_long_side: int = Field(gt=0)


class Style(_Part):
    """A named style: the vector the UNet takes and a line that tells what it looks like."""

    vector: tuple[float, ...]
    about: str = ""


class Steps(_Part):
    """Where sampling starts at full strength, and the lowest level a later step starts from (timesteps)."""

    top: float = Field(gt=0)
    floor: float = Field(ge=0)


class SolverChoice(_Part):
    """The solver the UNet is sampled with, by name, and that solver's own options.

    karras  the levels of Karras et al. 2022, eq. 5, for a solver in sigma space
    """

    name: str = Field("turbo", pattern=r"^[a-z][a-z0-9_]*$", max_length=50)
    options: dict[str, float] = Field(default_factory=dict)
    karras: bool = False


class BundleFile(_Part):
    """`bundle.json`, as it is on disk. Unknown keys are errors."""

    format: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    kind: Literal["latent-diffusion"]
    prediction: Literal["epsilon", "v", "sample", "flow"]
    levels: Schedule
    latent: LatentSpace
    takes_source: bool
    strength_scales_style: bool = False
    sizes: Sizes
    steps: Steps = Steps(top=999.0, floor=200.0)
    solver: SolverChoice = SolverChoice()
    default_style: str
    styles: dict[str, Style] = Field(min_length=1)
    networks: dict[Literal["encoder", "unet", "decoder"], str]
    files: dict[str, Sha256]
    licence: str
    source: str

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            path = PurePosixPath(name)
            if not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
                raise ValueError(f"file name {name!r} leads outside the bundle")
        return files

    @model_validator(mode="after")
    def _complete(self) -> "BundleFile":
        missing = {"encoder", "unet", "decoder"} - set(self.networks)
        if missing:
            raise ValueError(f"networks lacks {', '.join(sorted(missing))}")
        unlisted = set(self.networks.values()) - set(self.files)
        if unlisted:
            raise ValueError(f"{', '.join(sorted(unlisted))} has no sha256 under files")
        if self.default_style not in self.styles:
            raise ValueError(f"default_style {self.default_style!r} is not among the styles")
        if len({len(style.vector) for style in self.styles.values()}) != 1:
            raise ValueError("style vectors differ in length")
        return self


class Bundle:
    """A verified bundle. `network(kind)` is the path of an exported network, `about` its description."""

    def __init__(self, folder: Path, about: BundleFile) -> None:
        self.folder = folder
        self.about = about

    def network(self, kind: Literal["encoder", "unet", "decoder"]) -> Path:
        """Path of the exported `encoder`, `unet` or `decoder`."""
        return self.folder / self.about.networks[kind]


def shipped_bundles() -> Path:
    """The folder of the bundles inside the package."""
    return Path(str(resources.files("warpfuse.engine") / "bundles"))


def bundle_folders() -> list[Path]:
    """Where bundles are looked for by name, in this order: $WARPFUSE_BUNDLES, the user's own, those in the package."""
    named = [Path(part) for part in os.environ.get("WARPFUSE_BUNDLES", "").split(os.pathsep) if part]
    return [*named, Path(platformdirs.user_data_dir("warpfuse")) / "bundles", shipped_bundles()]


def find_bundles() -> dict[str, Path]:
    """Every bundle that can be asked for by name. The first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in bundle_folders():
        if folder.is_dir():
            for candidate in sorted(folder.iterdir()):
                if (candidate / DESCRIPTION).is_file():
                    found.setdefault(candidate.name, candidate)
    return found


def load_bundle(name: str) -> Bundle:
    """Open a bundle by name or folder: description checked, every file's sha256 verified.

    Raises BundleError: no such bundle, a description that does not fit, a missing or torn file.
    """
    folder = _locate(name)
    about = _read_description(folder)
    # A development install links every file of the package; what counts is that all of them lie beside the description.
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
    return Bundle(folder, about)


def write_bundle(folder: Path, files: dict[str, bytes], **about: Any) -> Bundle:
    """Write a bundle whole or not at all: into a temporary folder beside `folder`, then renamed.

    files  name in the bundle -> contents; their sha256 are filled in
    about  the fields of `BundleFile` but `format` and `files`

    Raises BundleError when the fields do not make a bundle or `folder` holds something that is not one.
    """
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    try:
        description = BundleFile.model_validate({"format": FORMAT, "files": hashes, **about})
    except ValidationError as error:
        raise BundleError(f"bundle {folder}: {_first(error)}") from None
    if folder.exists() and any(folder.iterdir()) and not (folder / DESCRIPTION).is_file():
        raise BundleError(f"{folder} exists and is not a bundle. Give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        fresh = Path(temporary) / "new"
        fresh.mkdir()
        for name, data in files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (fresh / DESCRIPTION).write_text(json.dumps(description.model_dump(mode="json"), indent=1) + "\n")
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        fresh.rename(folder)
    return Bundle(folder, description)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _locate(name: str) -> Path:
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


def _read_description(folder: Path) -> BundleFile:
    path = folder / DESCRIPTION
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}. Copy or export the bundle again") from None
    version = raw.get("format") if isinstance(raw, dict) else None
    if version != FORMAT:
        raise BundleError(f"{path}: format {version!r}, this warpfuse reads format {FORMAT}. Export it again")
    try:
        return BundleFile.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise BundleError(f"{path}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    detail = error.errors()[0]
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else str(detail["msg"])
