"""What holds for a frame beside the settings of its version. Its stamp carries it, so that every stage agrees."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PromptShare:
    """A prompt, and how much of it counts: what the network is told is the mean of what all of them come to.

    share  above 0; those of one frame add up to 1
    loras  scales of live LoRAs that were asked for, by name
    """

    share: float
    prompt: str
    negative: str = ""
    loras: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Interim:
    """Values that stand in the place of those of the configuration.

    numbers  path of a key, as in stages.fuse.weight, and its value; entries of a list are named by their number
    prompts  in the place of prompt, negative and loras; none: these are not on their way
    cue      number of the cue of the schedule that lies over the settings, below the rest; None: there is none
    by_hand  paths of keys of this cue that were set since it began: they are as the settings have them
    """

    numbers: tuple[tuple[str, float], ...] = ()
    prompts: tuple[PromptShare, ...] = ()
    cue: int | None = None
    by_hand: tuple[str, ...] = ()
