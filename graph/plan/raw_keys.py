"""Keys of a run before they are validated: read from a graph file, set one by one, laid over one another."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from warpfuse.engine.errors import one_line
from warpfuse.graph.errors import ConfigError
from warpfuse.stages.controls.settings import ControlSettings, scales_in_full
from warpfuse.stages.diffusion.settings import in_weights
from warpfuse.stages.diffusion.style_images import StyleImageSettings, images_in_full
from warpfuse.stages.masking.settings import in_keys
from warpfuse.stages.settings import StageSettings

_TEXTS = ("prompt", "negative")  # keys whose values are text


def read_graph_file(path: Path) -> dict[str, Any]:
    """The keys of a YAML graph file, not yet validated. Raises ConfigError: missing, no YAML, no mapping."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"graph file {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"graph file {path}: expected YAML, this is no text. A video is --source {path}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"graph file {path}: {one_line(error)}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"graph file {path}: expected keys and values, as in 'prompt: ink', got {type(raw).__name__}")
    return raw


def set_key(raw: dict[str, Any], assignment: str) -> None:
    """Apply one `stages.fuse.weight=0.7` to raw keys. Raises ConfigError.

    The value is read as YAML; a prompt is the text as it stands, unless it is quoted: brackets and colons are its own.
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {assignment!r}: expected KEY=VALUE, as in stages.fuse.weight=0.7")
    quoted = re.fullmatch(r"""\s*("[^"]*"|'[^']*')\s*""", text)
    try:
        value = text.strip() if keys[-1] in _TEXTS and not quoted else yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {assignment!r}: the value is no YAML") from None
    if keys == ["look"] and value in _dict(raw.get("looks")):
        laid = merge(raw, {"look": value})  # on top of what the file says, as every other key that is set
        raw.clear()
        raw.update(laid)
        return
    raw.update(_spelled_out(raw))
    place: Any = raw
    for key, after in pairwise(keys):
        place = place[int(key)] if _is_place(place, key) else place.setdefault(key, {})
        if not isinstance(place, dict) and not _is_place(place, after):
            raise ConfigError(f"--set {assignment!r}: {key} holds a value, not keys")
    place[int(keys[-1]) if _is_place(place, keys[-1]) else keys[-1]] = value


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with `new` on top, nested ones too; a new `fusion` replaces an old stages.fuse.weight and the reverse.

    A short form is the keys it stands for, so that a later key is laid over these. An entry of a list is named by its
    number, as in stages.fuse.between.0.weight; a list takes the place of another.
    """
    new = _spelled_out(recalled(new, {**_dict(old.get("looks")), **_dict(new.get("looks"))}, old))
    merged = _laid_over(_spelled_out(old), new)
    for whole in ("looks", "midi"):  # each entry as a whole; none takes it out
        if isinstance(merged.get(whole), dict):
            named = {name: _dict(new.get(whole)).get(name, keys) for name, keys in merged[whole].items()}
            merged[whole] = {name: keys for name, keys in named.items() if keys is not None}
    weight_given = "weight" in _dict(_dict(new.get("stages")).get("fuse"))
    if "fusion" in new and not weight_given:
        stages = _dict(merged.get("stages"))
        fuse = {k: v for k, v in _dict(stages.get("fuse")).items() if k != "weight"}
        merged["stages"] = {**stages, "fuse": fuse}
    elif weight_given and "fusion" not in new:
        merged.pop("fusion", None)
    return merged


def cue_keys(cue: str | Mapping[str, Any], looks: Any, now: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a cue, the name of a look or keys; other arguments as `recalled` has them. Raises ConfigError."""
    return recalled({"look": cue} if isinstance(cue, str) else cue, looks, now)


def recalled(keys: Mapping[str, Any], looks: Any, now: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with those of the look that `look` among them names, below the others. Raises ConfigError.

    looks  keys by the name of the look; what is no mapping holds none
    now    the keys that these will be laid over

    A look that has `controls` or `images` says of all of them how strongly they count: one that it does not name is
    laid off, and one whose scale it does not say has the default. They cannot go while frames flow.
    """
    looks = _dict(looks)
    rest = {key: value for key, value in keys.items() if key != "look"}
    if "look" not in keys:
        return rest
    name = keys["look"]
    if not isinstance(name, str) or not isinstance(looks.get(name), dict):
        raise ConfigError(f"there is no look {name!r}; there are: {', '.join(map(str, looks)) or 'none yet'}")
    look, now = _spelled_out(looks[name]), _spelled_out(now)
    for key, strengths in _STRENGTHS.items():
        if isinstance(look.get(key), Mapping):
            said = {
                one: {**strengths, **keys} if isinstance(keys, Mapping) else keys for one, keys in look[key].items()
            }
            off = {one: _laid_off(keys, strengths) for one, keys in _dict(now.get(key)).items() if one not in said}
            look[key] = {**off, **said}
    return merge(look, rest)


_STRENGTHS: Mapping[str, Mapping[str, float | None]] = {
    "controls": {"scale": ControlSettings.model_fields["scale"].default},
    "images": {name: StyleImageSettings.model_fields[name].default for name in ("scale", "style", "layout")},
}
"""The keys that say how strongly a control or an image counts, and their defaults."""


def _laid_off(settings: Any, strengths: Mapping[str, float | None]) -> dict[str, float]:
    """A key that is None follows the scale."""
    said = {**strengths, **(settings.model_dump() if isinstance(settings, StageSettings) else _dict(settings))}
    return {name: 0.0 for name in strengths if said[name] is not None}


def nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    """(("stages", "fuse", "weight"), 0.7) -> {"stages": {"fuse": {"weight": 0.7}}}. path: one name at least."""
    first, *rest = path
    return {first: nested(rest, value) if rest else value}


def leaves_of(keys: Mapping[str, Any]) -> list[str]:
    """The paths of the values that keys name, as in stages.fuse.weight; short forms by what they stand for."""
    return ["stages.fuse.weight" if path == "fusion" else path for path in _leaves(_spelled_out(keys), "")]


def without(keys: Mapping[str, Any], named: Collection[str]) -> dict[str, Any]:
    """The keys without the values at these paths, or above or below them; short forms by what they stand for."""
    return _without(_spelled_out(keys), named, "")


def _without(keys: Mapping[str, Any], named: Collection[str], prefix: str) -> dict[str, Any]:
    kept = {}
    for name, value in keys.items():
        if isinstance(value, dict) and value:
            value = _without(value, named, f"{prefix}{name}.")
            gone = not value
        else:
            (path,) = leaves_of({f"{prefix}{name}": None})
            gone = any(touches(path, one) for one in named)
        if not gone:
            kept[name] = value
    return kept


def touches(path: str, other: str) -> bool:
    """One of two paths is the other, or holds it."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def _leaves(keys: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in keys.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _laid_over(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        inner = merged.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            merged[key] = _laid_over(inner, value)
        elif isinstance(value, dict) and value and all(_is_place(inner, name) for name in value):
            entries = _laid_over({str(n): entry for n, entry in enumerate(inner or ())}, value)
            merged[key] = list(entries.values())
        else:
            merged[key] = value
    return merged


def _is_place(value: Any, key: str) -> bool:
    """Whether key is the number of an entry of a list."""
    return isinstance(value, list | tuple) and key.isascii() and key.isdigit() and int(key) < len(value)


def _spelled_out(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with those that short forms stand for: recipes of attention, numbers of controls, files of
    images, a mask by its name."""
    short = {"controls": scales_in_full, "images": images_in_full, "mask": in_keys}
    keys = {**keys, **{name: in_full(keys[name]) for name, in_full in short.items() if name in keys}}
    stages = _dict(keys.get("stages"))
    predict = _dict(stages.get("predict"))
    try:
        weights = in_weights(predict["attention"])
    except (KeyError, ValueError):
        return keys  # none, or one that the validation that follows tells of
    return {**keys, "stages": {**stages, "predict": {**predict, "attention": weights}}}


def _dict(value: Any) -> dict[str, Any]:
    """What is no mapping is told by the validation that follows."""
    return value if isinstance(value, dict) else {}
