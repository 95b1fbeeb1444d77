"""Presets: graph files under names, in one folder."""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from platformdirs import user_config_path

from warpfuse.engine.errors import one_line
from warpfuse.engine.files import write_whole
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate

MOST_BYTES = 64 * 1024
_MOST_DEPTH = 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")


class Presets:
    """The presets in one folder, by default in the user's configuration. A name cannot lead to another folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or user_config_path("warpfuse") / "presets"

    def names(self) -> list[str]:
        """Names of the presets, in the order in which they were first saved."""
        files = [file for file in self._folder.glob("*.yaml") if _NAME.fullmatch(file.stem)]
        return [file.stem for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.stem))]

    def text(self, name: str) -> str:
        """Text of a preset. Raises ConfigError for an unknown name."""
        try:
            return self._file(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"no preset {name!r}; there are: {', '.join(self.names()) or 'none yet'}") from None

    def load(self, name: str) -> dict[str, Any]:
        """The keys of a preset, validated. Raises ConfigError."""
        return parse(self.text(name))

    def save(self, name: str, text: str) -> None:
        """Save a graph file under a name. It replaces an older one and keeps its place in `names`.

        Raises ConfigError, and then keeps what there was."""
        file = self._file(name)
        parse(text)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            older = file.stat() if file.exists() else None
            write_whole(file, text.encode(), mode=0o600)  # the address of a source may hold a password
            if older is not None:
                os.utime(file, ns=(older.st_atime_ns, older.st_mtime_ns))
        except OSError as error:
            raise ConfigError(f"preset {name!r} cannot be saved in {self._folder}: {error.strerror}") from None

    def delete(self, name: str) -> None:
        """Delete a preset. Raises ConfigError for an unknown name."""
        try:
            self._file(name).unlink()
        except OSError:
            raise ConfigError(f"no preset {name!r}; there are: {', '.join(self.names()) or 'none yet'}") from None

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"preset name {name[:80]!r}: expected 1 to 64 letters, digits, spaces, - or _")
        return self._folder / f"{name}.yaml"


def dump(keys: dict[str, Any]) -> str:
    """Keys as a graph file."""
    return yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)


def parse(text: str) -> dict[str, Any]:
    """The keys of a graph file that may come from a stranger, checked to be valid.

    Raises ConfigError: too long, nested too deep, aliases (a few of them unfold to gigabytes), no YAML, bad keys."""
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise ConfigError(f"a graph file has at most {MOST_BYTES} bytes")
    try:
        _check_shape(text)
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"this is no YAML: {one_line(error, 200)}") from None
    if raw is None:
        raw = {}
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise ConfigError(f"expected keys and values, as in 'prompt: ink', got {type(raw).__name__}")
    validate(raw)
    return raw


def _check_shape(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError("aliases (*name) are not taken in a graph file")
        depth += isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent))
        depth -= isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent))
        if depth > _MOST_DEPTH:
            raise ConfigError(f"nested deeper than {_MOST_DEPTH} levels")
