"""Settings of control maps. They are in a module of their own so that a configuration can be validated before torch is
loaded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from warpfuse.engine.bundle_parts import CONTROL_SCALE_LIMIT, Control
from warpfuse.stages.bundle_names import check_names
from warpfuse.stages.errors import ControlError
from warpfuse.stages.settings import StageSettings

_PREFIX = "control_"


class ControlSettings(StageSettings):
    """Settings of every kind of control.

    kind    kind of map: the name of a module of `stages/controls`
    scale   0..2: how strongly it steers the UNet; 0 switches it off
    window  timesteps low, high: levels at which it steers

    takes_past  the map is computed from the frame and the last styled picture, warped onto it
    fixed       keys that are fixed when the stage is opened
    """

    takes_past: ClassVar[bool] = False
    fixed: ClassVar[tuple[str, ...]] = ("kind",)

    kind: str
    scale: float = Field(1.0, ge=0, le=CONTROL_SCALE_LIMIT)
    window: tuple[float, float] = (0.0, 1000.0)

    @field_validator("window")
    @classmethod
    def _ascending(cls, window: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= window[0] <= window[1]:
            raise ValueError(f"expected two timesteps, the lower first, as in [0, 1000]; got {list(window)}")
        return window

    @property
    def built(self) -> tuple[Any, ...]:
        """The values of `fixed`."""
        return tuple(getattr(self, name) for name in self.fixed)

    @property
    def files(self) -> frozenset[str]:
        """Files and folders that are named in the settings."""
        return frozenset()

    def scale_at(self, timestep: float) -> float:
        """The scale at a level: 0 outside the window."""
        return self.scale if self.window[0] <= timestep <= self.window[1] else 0.0


class CannySettings(ControlSettings):
    """Edges by Canny, white on black.

    low, high  thresholds of the gradient: an edge starts above `high`, and continues above `low`
    """

    kind: Literal["canny"]
    low: float = Field(100.0, ge=0, le=1500)
    high: float = Field(200.0, ge=0, le=1500)

    @model_validator(mode="after")
    def _ordered(self) -> "CannySettings":
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; expected low at most high")
        return self


class ImageSettings(ControlSettings):
    """A given map.

    picture  file of a still picture, used for every frame; none: the frame of the source is the map
    """

    fixed: ClassVar[tuple[str, ...]] = ("kind", "picture")  # the file is read when the stage is opened

    kind: Literal["image"]
    picture: str | None = Field(None, min_length=1)

    @property
    def files(self) -> frozenset[str]:
        """The picture."""
        return frozenset(filter(None, (self.picture,)))


class SoftEdgeSettings(ControlSettings):
    """Soft edges, white on black, as from HED: ridges of the contrast over one, two or four pixels.

    low, high  0..1: contrast above which there is an edge, and above which it is white
    gamma      below 1 makes faint edges brighter
    """

    kind: Literal["softedge"]
    low: float = Field(0.06, ge=0, le=1)
    high: float = Field(0.6, ge=0, le=1)
    gamma: float = Field(0.7, gt=0, le=4)

    @model_validator(mode="after")
    def _ordered(self) -> "SoftEdgeSettings":
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; expected low below high")
        return self


class LineartSettings(ControlSettings):
    """Lines, white on black, where the frame is darker than its surroundings.

    sigma      width of the lines, px
    threshold  0..1: smallest difference that makes a line
    steepness  how fast a line becomes white above the threshold
    """

    kind: Literal["lineart"]
    sigma: float = Field(1.0, ge=0.3, le=10)
    threshold: float = Field(0.0, ge=0, le=1)
    steepness: float = Field(30.0, gt=0, le=1000)


class TileSettings(ControlSettings):
    """The frame itself, without its detail.

    smaller  factor by which the frame is scaled down and up again; 1 leaves it unchanged
    """

    kind: Literal["tile"]
    smaller: float = Field(4.0, ge=1, le=64)


class ColourSettings(ControlSettings):
    """The mean colours of cells.

    cell_px  side of a cell, pixels
    """

    kind: Literal["colour"]
    cell_px: int = Field(64, ge=2, le=512)


class PastSettings(ControlSettings):
    """The last styled picture, warped onto the frame, as TemporalNet takes it; the frame where it is not trusted."""

    takes_past: ClassVar[bool] = True

    kind: Literal["past"]


class NetworkMapSettings(ControlSettings):
    """The output of a network for the frame.

    of      name or folder of a bundle of kind `map`
    invert  swap black and white
    """

    fixed: ClassVar[tuple[str, ...]] = ("kind", "of")  # the network is opened with the stage

    of: str
    invert: bool = False


class HedSettings(NetworkMapSettings):
    """Soft edges as HED finds them, white on black, by the bundle that ships or another."""

    kind: Literal["hed"]
    of: str = Field("soft-edges", min_length=1)


class NetworkSettings(NetworkMapSettings):
    """The output of any network."""

    kind: Literal["network"]
    of: str = Field("", validate_default=True)

    @field_validator("of")
    @classmethod
    def _named(cls, of: str) -> str:
        if not of:
            raise ValueError("expected a bundle of kind map, as in of: ./depth")
        return of


AnyControl = Annotated[
    CannySettings
    | ColourSettings
    | HedSettings
    | ImageSettings
    | LineartSettings
    | NetworkSettings
    | PastSettings
    | SoftEdgeSettings
    | TileSettings,
    Field(discriminator="kind"),
]
"""Settings of any kind. A new kind adds its class here and a module of its name in `stages/controls`."""


KINDS: Mapping[str, type[ControlSettings]] = {
    get_args(settings.model_fields["kind"].annotation)[0]: settings for settings in get_args(get_args(AnyControl)[0])
}
"""The settings class of each kind."""


def scales_in_full(controls: Any) -> Any:
    """Short forms as settings: a number is the scale. {"canny": 0.7} -> {"canny": {"scale": 0.7}}."""
    if not isinstance(controls, Mapping):
        return controls
    return {name: value if isinstance(value, Mapping | ControlSettings) else {"scale": value}
            for name, value in controls.items()}  # fmt: skip


def in_full(controls: Any) -> Any:
    """As `scales_in_full`, and for a control without a kind the name is its kind.

    Raises ValueError if that is no kind.
    """
    controls = scales_in_full(controls)
    if not isinstance(controls, dict):
        return controls
    for name, keys in controls.items():
        if not isinstance(keys, dict):
            continue
        if keys.get("kind", name) not in KINDS:
            said = f"kind {keys['kind']!r}" if "kind" in keys else f"the map of {name!r} is of no kind"
            raise ValueError(f"{name}: {said}; expected kind: one of {', '.join(sorted(KINDS))}")
        controls[name] = {"kind": name, **keys}
    return controls


ControlName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
Controls = Annotated[dict[ControlName, AnyControl], BeforeValidator(in_full)]
"""The controls of a run by their names in the bundle."""


def stage_of(name: str) -> str:
    """Name of the stage that makes the map of a control."""
    return f"{_PREFIX}{name}"


def control_of(stage: str) -> str | None:
    """Name of the control whose map a stage makes; None for other stages."""
    return stage.removeprefix(_PREFIX) if stage.startswith(_PREFIX) else None


def check_controls(asked: Iterable[str], known: Sequence[Control]) -> None:
    """Raise ControlError unless a bundle has all controls in `asked`. known: the bundle's."""
    check_names("controls", asked, known, "control", "--control NAME=CONTROLNET", ControlError)
