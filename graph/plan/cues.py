"""What a configuration comes to while a cue of its schedule holds."""

from collections.abc import Callable, Collection

from warpfuse.engine.errors import BadInput
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.raw_keys import cue_keys, leaves_of, merge, without


def with_cue(config: GraphConfig, number: int | None, by_hand: Collection[str] = ()) -> GraphConfig:
    """The configuration with a cue of its schedule on top, and no schedule; None: as it is. Raises ConfigError.

    by_hand  paths of keys that were set since the cue began, and are as the configuration has them
    """
    if number is None:
        return config
    now = config.model_dump(mode="json", exclude={"looks", "schedule"})
    return validate(merge(now, without(cue_keys(config.schedule.cues[number], config.looks, now), by_hand)))


def named_by_cue(config: GraphConfig, number: int) -> list[str]:
    """The paths of the keys that a cue of the schedule names."""
    now = config.model_dump(mode="json", exclude={"looks", "schedule"})
    return leaves_of(cue_keys(config.schedule.cues[number], config.looks, now))


def check_cues(config: GraphConfig, check: Callable[[GraphConfig], object]) -> None:
    """Call `check` with what each cue of the schedule comes to. Raises what it raises, as ConfigError with the cue."""
    for number in range(len(config.schedule.cues)):
        try:
            check(with_cue(config, number))
        except BadInput as error:
            raise ConfigError(f"schedule.cues.{number}: {error}") from None
