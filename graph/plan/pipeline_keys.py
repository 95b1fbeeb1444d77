"""The keys of a Pipeline with their types, for editors and type checkers: those of a graph file without `REFUSED`.

They are validated by `config.GraphConfig`; a test keeps the two in agreement.
"""

from fractions import Fraction
from typing import Any, Literal, TypedDict

REFUSED = ("source", "sinks", "frames", "on_fault", "sound_delay", "decoder")
"""Keys of a graph file that a Pipeline refuses, since it takes frames by `push` and returns its pictures."""


class PipelineKeys(TypedDict, total=False):
    """The keys, described in `config.GraphConfig`. `stages` has the settings of single stages, as in a graph file."""

    bundle: str
    prompt: str
    negative: str
    loras: dict[str, float]
    controls: dict[str, dict[str, Any] | float]
    images: dict[str, dict[str, Any] | str | float]
    steps: int
    strength: float
    fusion: float
    size: tuple[int, int] | str | None
    mirror: bool
    rotate: Literal[0, 90, 180, 270]
    fit: Literal["fill", "letterbox", "stretch"]
    output: tuple[int, int] | str | None
    seed: int
    flow: str
    backend: str
    precision: Literal["auto", "float", "int8"]
    device: str
    workers: str | dict[str, Any]
    listen: str
    keys: str
    fps: float | str | Fraction | None
    background: str | tuple[int, int, int]
    realtime: bool
    loop: bool
    in_flight: int | None
    name: str
    stage_deadline_s: float
    threads: int | None
    pace: dict[str, Any]
    mask: str | dict[str, Any]
    stages: dict[str, Any]
    looks: dict[str, dict[str, Any]]
    look: str
    hooks: str
    bpm: float
    schedule: dict[str, Any]
    midi: dict[str, dict[str, Any] | str]
