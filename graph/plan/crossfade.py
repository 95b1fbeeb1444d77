"""Crossfades: numbers and the prompt of a run move from their present values to new ones over some seconds.

Only the source computes how far each has moved, from the presentation times of its frames. It stamps every frame with
the values for it (`stages/interim.py`). Numbers with a fraction are interpolated linearly. Prompts are blended in what
the network takes of them: style weights or text embeddings, with the scales of LoRAs.
Everything else in a change (switches, choices, whole numbers) takes effect at once. No clock is read here: the time is
an argument.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.raw_keys import leaves_of, touches
from warpfuse.stages.interim import Interim, PromptShare

LONGEST_S = 3600.0

OF_THE_SHOW = ("looks", "bpm", "schedule", "midi")
"""Live keys that say what is played and when. They are not part of a look."""

LIVE = (
    "prompt", "negative", "loras", "controls", "images", "strength", "steps", "mirror", "sound_delay", "stages",
    "pace", "mask", *OF_THE_SHOW,
)  # fmt: skip
"""Keys that may change between frames. The others are fixed when the run is opened."""

_PROMPT = ("prompt", "negative", "loras")  # these together make the embedding, so they fade together
# A time that selects a frame: values in between would select other frames. The sound has no frames to fade with.
_AT_ONCE = ("stages.anchor.at", "sound_delay")
_FAINTEST = 1e-3  # a prompt with a smaller share is invisible and is dropped
_MOST_PROMPTS = 6  # prompts blended in one frame; after repeated changes within a crossfade the strongest are kept
_LONGEST_TEXT = 4000  # bytes of a fading prompt, since every frame carries it


@dataclass(frozen=True, slots=True)
class Timed:
    """A change of settings and its duration.

    keys     new values, merged over the present settings; without `HOW`
    over_ns  duration of the crossfade; 0: at once
    named    paths of the keys in the change, such as stages.fuse.weight; it ends crossfades of them that are under way
    on_beat  the first frame that carries the change is on a beat
    """

    keys: dict[str, Any]
    over_ns: int = 0
    named: tuple[str, ...] = ()
    on_beat: bool = False


HOW = ("over_s", "over_beats", "on_beat")
"""Beside the keys of a change: how it is made."""


def timed(keys: Mapping[str, Any], bpm: float = 60.0) -> Timed:
    """Read a change. Raises ConfigError.

    keys  may contain `over_s`, the seconds that it takes, or `over_beats`, the beats, and `on_beat`
    bpm   the tempo that beats are counted at
    """
    rest = {key: value for key, value in keys.items() if key not in HOW}
    if "over_s" in keys and "over_beats" in keys:
        raise ConfigError(f"over_s={keys['over_s']!r} and over_beats={keys['over_beats']!r}: give one of them")
    over_s = _seconds(keys.get("over_s", 0), "over_s", "seconds", LONGEST_S)
    over_s += _seconds(keys.get("over_beats", 0), "over_beats", "beats", LONGEST_S * bpm / 60) * 60 / bpm
    on_beat = keys.get("on_beat", False)
    if on_beat not in (True, False):
        raise ConfigError(f"on_beat: expected true or false, got {on_beat!r}")
    return Timed(rest, round(over_s * 1e9), tuple(leaves_of(rest)), bool(on_beat))


def _seconds(value: Any, name: str, unit: str, most: float) -> float:
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise ConfigError(f"{name}: expected {unit} from 0 to {most:g}, got {value!r}")
    return float(value)


def check_prompt(change: Timed, config: GraphConfig) -> None:
    """Raise ConfigError for a prompt too long to fade."""
    texts = (config.prompt, config.negative) if change.over_ns else ()
    if (size := sum(len(text.encode()) for text in texts)) > _LONGEST_TEXT:
        raise ConfigError(f"over_s: a prompt of {size} bytes, expected {_LONGEST_TEXT} at most. Leave over_s out")


@dataclass(slots=True)
class _Way:
    """A crossfade from `start` to the value in the settings.

    over_ns    its duration
    passed_ns  the time passed since its first frame; below 0: it had no frame yet
    """

    start: Any
    over_ns: int
    passed_ns: int = -1

    @property
    def share(self) -> float:
        return max(self.passed_ns, 0) / self.over_ns


class Crossfades:
    """The crossfades under way, and the values for each frame. Used at the source. Not thread-safe.

    Each key has a crossfade of its own. A key that is changed again starts from its present value; crossfades of other
    keys continue.
    """

    def __init__(self, config: GraphConfig) -> None:
        self._numbers = dict(_numbers(config))
        self._prompts = _prompts(config)
        self._ways: dict[str, _Way] = {}
        self._prompt_way: _Way | None = None
        self._pts_ns: int | None = None

    def change(self, config: GraphConfig, over_ns: int = 0, named: tuple[str, ...] = ()) -> None:
        """Start crossfades to the values of `config`, from the next frame on. `over_ns` and `named`: see `Timed`."""
        before, self._numbers = self._numbers, dict(_numbers(config))
        for path, to in self._numbers.items():
            if before.get(path) == to and not is_named(path, named):
                continue
            way = self._ways.pop(path, None)
            start = before.get(path) if way is None else _between(way, before[path])
            if over_ns and start is not None and start != to:
                self._ways[path] = _Way(start, over_ns)
        self._ways = {path: way for path, way in self._ways.items() if path in self._numbers}
        prompts = _prompts(config)
        if prompts != self._prompts or any(is_named(key, named) for key in _PROMPT):
            shown = self._shown_prompts()
            self._prompts = prompts
            self._prompt_way = _Way(shown, over_ns) if over_ns and shown != prompts else None

    def at(self, pts_ns: int) -> Interim | None:
        """Values for the frame with this presentation time; None: those of the configuration. Frames come in order.

        A crossfade begins with the first frame after the change. A jump back in time, as of a looped file, counts as no
        time passed.
        """
        passed_ns = 0 if self._pts_ns is None else max(0, pts_ns - self._pts_ns)
        self._pts_ns = pts_ns
        ways = [*self._ways.values(), *([self._prompt_way] if self._prompt_way is not None else [])]
        if not ways:
            return None
        for way in ways:
            way.passed_ns = 0 if way.passed_ns < 0 else way.passed_ns + passed_ns
        self._ways = {path: way for path, way in self._ways.items() if way.share < 1}
        if self._prompt_way is not None and self._prompt_way.share >= 1:
            self._prompt_way = None
        if not self._ways and self._prompt_way is None:
            return None
        numbers = tuple((path, _between(way, self._numbers[path])) for path, way in self._ways.items())
        return Interim(numbers, self._shown_prompts() if self._prompt_way is not None else ())

    def _shown_prompts(self) -> tuple[PromptShare, ...]:
        way = self._prompt_way
        if way is None:
            return self._prompts
        share = way.share
        found: dict[PromptShare, float] = {}
        for one, rest in [*((one, 1 - share) for one in way.start), *((one, share) for one in self._prompts)]:
            same = replace(one, share=1.0)
            found[same] = found.get(same, 0.0) + one.share * rest
        kept = sorted(found.items(), key=lambda entry: -entry[1])[:_MOST_PROMPTS]
        kept = [(one, part) for one, part in kept if part > _FAINTEST]
        total = sum(part for _, part in kept)
        return tuple(replace(one, share=part / total) for one, part in kept)


def shown(config: GraphConfig, interim: Interim | None) -> GraphConfig:
    """The configuration with interim numbers in place of its own.

    Nothing is validated: valid ranges are intervals, so a number between two valid ones is valid.
    """
    if interim is None or not interim.numbers:
        return config
    tree: dict[str, Any] = {}
    for path, value in interim.numbers:
        *parts, last = path.split(".")
        place = tree
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    laid: GraphConfig = _laid(config, tree)
    return laid


def _laid(value: Any, tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _laid(getattr(value, name), inner) for name, inner in tree.items()})
    if isinstance(value, Mapping):
        return {**value, **{name: _laid(value[name], inner) for name, inner in tree.items()}}
    return tuple(_laid(entry, tree[str(n)]) if str(n) in tree else entry for n, entry in enumerate(value))


def _between(way: _Way, to: float) -> float:
    found: float = way.start + (to - way.start) * way.share
    return found


def _numbers(config: GraphConfig) -> Iterator[tuple[str, float]]:
    """Path and value of every number that fades on its own: fractional live keys, without `_PROMPT` and `_AT_ONCE`."""
    for name in LIVE:
        if name not in (*_PROMPT, *OF_THE_SHOW):
            yield from (
                (path, value) for path, value in _fractions(getattr(config, name), name) if path not in _AT_ONCE
            )


def _fractions(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and math.isfinite(value):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _fractions(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _fractions(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _fractions(inner, f"{path}.{number}")


def _prompts(config: GraphConfig) -> tuple[PromptShare, ...]:
    return (PromptShare(1.0, config.prompt, config.negative, tuple(sorted(config.loras.items()))),)


def is_named(path: str, named: tuple[str, ...]) -> bool:
    """A change that names these keys names this one too."""
    return any(touches(path, one) for one in named)
