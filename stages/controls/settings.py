"""Settings of control maps, apart from their stages: a configuration is validated before torch is loaded."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from warpfuse.engine.bundle_parts import CONTROL_SCALE_LIMIT, Control
from warpfuse.stages.errors import ControlError
from warpfuse.stages.settings import StageSettings

_PREFIX = "control_"


class ControlSettings(StageSettings):
    """What every kind of control map has: how strongly it steers the UNet, and at which levels.

    kind    of map: the name of a module of `stages/controls`
    scale   0..2: how strongly; 0 is the UNet without
    window  timesteps low, high: levels at which it does

    takes_past  the kind takes the last styled picture, warped onto the frame, beside the frame
    fixed       keys that decide how the stage is opened, and cannot change while frames flow
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
        """Files and folders of this machine that they name."""
        return frozenset()

    def scale_at(self, timestep: float) -> float:
        """The scale at a level: 0 outside the window."""
        return self.scale if self.window[0] <= timestep <= self.window[1] else 0.0


class CannySettings(ControlSettings):
    """Edges by Canny, white on black.

    low, high  0..255: an edge begins where the gradient is above `high`, and goes on while it is above `low`
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
    """A map that is there already.

    picture  file of a still picture, shown with every frame; none: the frame of the source is the map itself
    """

    fixed: ClassVar[tuple[str, ...]] = ("kind", "picture")  # the file is read when the stage is opened

    kind: Literal["image"]
    picture: str | None = Field(None, min_length=1)

    @property
    def files(self) -> frozenset[str]:
        """The picture."""
        return frozenset(filter(None, (self.picture,)))


class SoftEdgeSettings(ControlSettings):
    """Soft edges, white on black, as of HED: what changes over one, two or four pixels, strongest first.

    low, high  0..1: contrast from which on there is an edge, and from which on it is white
    gamma      below 1 lifts what is faint
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
    """Lines, white on black: what is darker than its surroundings.

    sigma      pixels: how fine the lines are
    threshold  0..1: how much darker it is at least
    steepness  how sharply it becomes white from there on
    """

    kind: Literal["lineart"]
    sigma: float = Field(1.0, ge=0.3, le=10)
    threshold: float = Field(0.0, ge=0, le=1)
    steepness: float = Field(30.0, gt=0, le=1000)


class TileSettings(ControlSettings):
    """The frame itself, without its detail.

    smaller  how many times smaller it is made, each way, and back; 1 leaves it as it is
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
    """The last styled picture, warped onto the frame, as TemporalNet takes it; the frame where that is not trusted."""

    takes_past: ClassVar[bool] = True

    kind: Literal["past"]


class NetworkSettings(ControlSettings):
    """What a network makes of the frame.

    of      name or folder of a bundle of kind `map`
    invert  black and white the other way round
    """

    fixed: ClassVar[tuple[str, ...]] = ("kind", "of")  # the network is opened with the stage

    kind: Literal["network"]
    of: str = Field("", validate_default=True)
    invert: bool = False

    @field_validator("of")
    @classmethod
    def _named(cls, of: str) -> str:
        if not of:
            raise ValueError("expected a bundle of kind map, as in of: ./depth")
        return of


AnyControl = Annotated[
    CannySettings
    | ColourSettings
    | ImageSettings
    | LineartSettings
    | NetworkSettings
    | PastSettings
    | SoftEdgeSettings
    | TileSettings,
    Field(discriminator="kind"),
]
"""One of the kinds. A new kind adds its settings here and a module of its name in `stages/controls`."""


KINDS: Mapping[str, type[ControlSettings]] = {
    get_args(settings.model_fields["kind"].annotation)[0]: settings for settings in get_args(get_args(AnyControl)[0])
}
"""Kind -> its settings."""


def scales_in_full(controls: Any) -> Any:
    """Numbers in the place of settings are scales: {"canny": 0.7} -> {"canny": {"scale": 0.7}}."""
    if not isinstance(controls, Mapping):
        return controls
    return {name: value if isinstance(value, Mapping | ControlSettings) else {"scale": value}
            for name, value in controls.items()}  # fmt: skip


def in_full(controls: Any) -> Any:
    """The same, and a control that does not say its kind is of the kind that it is called by.

    Raises ValueError: it is called otherwise.
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
    """What the stage is called that makes the map of a control."""
    return f"{_PREFIX}{name}"


def control_of(stage: str) -> str | None:
    """The control whose map a stage makes; None for another stage."""
    return stage.removeprefix(_PREFIX) if stage.startswith(_PREFIX) else None


def check_controls(asked: Iterable[str], known: Sequence[Control]) -> None:
    """Nothing if a bundle has the controls that are asked for. Raises ControlError."""
    names = [control.name for control in known]
    for name in asked:
        if not known:
            raise ControlError(
                f"controls: {name!r} is asked for, but this bundle has no controls. Export it again: "
                f"warpfuse export SOURCE --control {name}=CONTROLNET ..."
            )
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
            raise ControlError(f"controls: no control called {name!r}{hint} This bundle has: {', '.join(names)}")
